// Print Splunk's table of search commands as JSON: command -> {"functions": [...], "options": [...]}. One argument: the
// folder of @splunk/dashboard-utils. Only the table's file is loaded.
import { createRequire } from "node:module";
import { join } from "node:path";

const loaded = createRequire(import.meta.url)(join(process.argv[2], "defaultSPLSyntax.json.js"));
const table = loaded.default ?? loaded;
const made = Object.entries(table).map(([name, command]) => [
  name.replace(/-command$/, ""),
  { functions: command.functions.map((one) => one.name), options: command.args.map((one) => one.key) },
]);
process.stdout.write(JSON.stringify(Object.fromEntries(made)));
