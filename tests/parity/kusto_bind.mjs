// Bind Kusto queries with Microsoft's own parser and analyser. JSON on stdin:
//   {"package": folder, "tables": {name: [[column, type]...]}, "queries": [{"name", "text"}...],
//    "functions"?: [{"name", "parameters", "body"}...]}   functions may call those before them
// JSON on stdout: [{"name", "diagnostics": [text...], "columns": [[name, type]...]}...]
// The package has no module loader: its two scripts make a global `Kusto` (version 12.4.1; constructors of other
// versions may be numbered differently, which the check of the columns below would show).
import { readFileSync } from "node:fs";
import { join } from "node:path";
import vm from "node:vm";

const given = JSON.parse(readFileSync(0, "utf8"));
for (const script of ["bridge.min.js", "Kusto.Language.Bridge.min.js"]) {
  vm.runInThisContext(readFileSync(join(given.package, script), "utf8"), { filename: script });
}
const { Symbols, GlobalState, KustoCode } = globalThis.Kusto.Language;

const items = (list) => Array.from({ length: list.Count }, (_, place) => list.getItem(place));
const columnsOf = (type) => (type && type.Columns ? items(type.Columns).map((one) => [one.Name, one.Type.Name]) : []);

const tables = Object.entries(given.tables).map(([name, columns]) => {
  const schema = "(" + columns.map(([column, type]) => `${column}:${type}`).join(",") + ")";
  const table = new Symbols.TableSymbol.$ctor7(name, schema, "");
  const made = table.Columns.Count;
  if (made !== columns.length) throw new Error(`table ${name}: ${made} of ${columns.length} columns were understood`);
  return table;
});
// An array of .NET in this bridge is a plain one.
const functions = (given.functions ?? []).map(
  ({ name, parameters, body }) => new Symbols.FunctionSymbol.$ctor16(name, `(${parameters})`, `{ ${body} }`, ""),
);
const database = new Symbols.DatabaseSymbol.ctor("db", [...tables, ...functions]);
const globals = GlobalState.Default.WithDatabase(database);

const answers = given.queries.map(({ name, text }) => {
  const code = KustoCode.ParseAndAnalyze(text, globals);
  const found = items(code.GetDiagnostics()).map(
    (one) => `${one.Severity} ${one.Code}: ${one.Message} at ${one.Start}: ${text.substr(one.Start, one.Length)}`,
  );
  return { name, diagnostics: found, columns: columnsOf(code.ResultType) };
});
process.stdout.write(JSON.stringify(answers));
