/* The app's settings page. It speaks with splunkd through Splunk Web, with the rights of whoever looks at it:
 *   configs/conf-macros/aitrail_index   which index
 *   configs/conf-aitrail/...            what is kept of findings, where alert actions go
 *   storage/passwords                   the token: written, never read back
 *   apps/local/aitrail                  that the app is set up
 * All of them are in Splunk's REST API reference. What comes back is shown as text, never as markup.
 */
(function () {
  "use strict";

  var OWN = "/servicesNS/nobody/aitrail/";
  var INDEX = /^\s*index\s*=\s*"?([A-Za-z0-9_][A-Za-z0-9_-]*)"?\s*$/;
  var REALM = "aitrail";
  var NAME = "response";

  // name: where it is kept and what it may be. "check" gives what is wrong, in words, or nothing.
  var FIELDS = [
    {
      id: "index", group: "Events", label: "Index", entity: "configs/conf-macros/aitrail_index", key: "definition",
      help: "The index that the collector ships to. Kept in the macro aitrail_index, the only place that names it.",
      read: function (text) { var found = INDEX.exec(text); return found ? found[1] : ""; },
      write: function (text) { return "index=" + text; },
      check: function (text) {
        return /^[a-z0-9_][a-z0-9_-]{0,79}$/.test(text) ? "" :
          "An index has lower-case letters, digits, _ and -, and begins with a letter, digit or _.";
      }
    },
    {
      id: "least_severity", group: "Findings", label: "Least severity that is kept",
      entity: "configs/conf-aitrail/findings", key: "least_severity",
      choices: ["informational", "low", "medium", "high", "critical"],
      help: "What rules find is written to the index as ai:access:alert, each finding once."
    },
    {
      id: "max_per_run", group: "Findings", label: "Most findings of one run",
      entity: "configs/conf-aitrail/findings", key: "max_per_run",
      help: "Of one rule. What is more, the next run takes.",
      check: whole(1, 5000)
    },
    {
      id: "url", group: "Alert actions", label: "Response API", entity: "configs/conf-aitrail/response", key: "url",
      optional: true, placeholder: "https://collector.example.com:8088",
      help: "Address of the collector (aitrail serve with [respond]). Empty: alert actions stop and say so.",
      check: function (text) {
        var url;
        try { url = new URL(text); } catch (error) { return "This is no address: https://HOST:PORT"; }
        if (url.protocol !== "https:") { return "It must begin with https://, for the token goes there."; }
        return url.username || url.password || url.search || url.hash ?
          "Only host, port and path: no user, query or fragment." : "";
      }
    },
    {
      id: "token", group: "Alert actions", label: "Token", secret: true, optional: true,
      help: "Kept encrypted by Splunk (storage/passwords) and not shown again.",
      check: function (text) {
        return /^[\x21-\x7e]{8,1024}$/.test(text) ? "" : "A token has 8 to 1024 characters without spaces.";
      }
    },
    {
      id: "timeout_seconds", group: "Alert actions", label: "Seconds to wait for an answer",
      entity: "configs/conf-aitrail/response", key: "timeout_seconds", check: whole(1, 60)
    },
    {
      id: "ca_file", group: "Alert actions", label: "File of certificate authorities",
      entity: "configs/conf-aitrail/response", key: "ca_file", optional: true,
      help: "PEM file on the search head; empty: those of the system. Certificates are always checked.",
      check: function (text) { return /^\/[^\x00-\x1f]*$/.test(text) ? "" : "A path on the search head begins with /."; }
    }
  ];

  function whole(least, most) {
    return function (text) {
      return /^[0-9]{1,5}$/.test(text) && +text >= least && +text <= most ? "" :
        "A whole number from " + least + " to " + most + ".";
    };
  }

  // --- splunkd

  function cookie(name) {
    var found = document.cookie.split("; ").filter(function (one) { return one.indexOf(name + "=") === 0; })[0];
    return found ? decodeURIComponent(found.slice(name.length + 1)) : "";
  }

  function ask(method, path, form) {
    var web = window.$C || {};
    var base = web.SPLUNKD_PATH || "/" + (web.LOCALE || "en-US") + "/splunkd/__raw";
    var given = new URLSearchParams(form || {});
    given.set("output_mode", "json");
    return fetch(base + OWN + path + (method === "GET" ? "?" + given : ""), {
      method: method,
      credentials: "include",
      body: method === "GET" ? undefined : given.toString(),
      headers: {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Requested-With": "XMLHttpRequest",
        "X-Splunk-Form-Key": cookie("splunkweb_csrf_token_" + web.MRSPARKLE_PORT_NUMBER)
      }
    }).then(function (answer) {
      return answer.json().catch(function () { return {}; }).then(function (told) {
        if (answer.ok) { return told; }
        var text = told.messages && told.messages[0] ? told.messages[0].text : "";
        var error = new Error(path + " answered " + answer.status + (text ? ": " + text : ""));
        error.status = answer.status;
        throw error;
      });
    });
  }

  function content(told) { return (told.entry && told.entry[0] && told.entry[0].content) || {}; }

  // Asked for by name and without its value, so that the browser never holds it.
  function stored() {
    var only = [["count", "0"], ["search", "realm=" + REALM], ["f", "realm"], ["f", "username"]];
    return ask("GET", "storage/passwords", only).then(function (told) {
      return (told.entry || []).some(function (one) {
        return one.content.realm === REALM && one.content.username === NAME;
      });
    });
  }

  // --- the form

  function make(tag, attributes, text) {
    var made = document.createElement(tag);
    Object.keys(attributes || {}).forEach(function (name) { made.setAttribute(name, attributes[name]); });
    if (text) { made.textContent = text; }
    return made;
  }

  function Form(root) {
    this.root = root;
    this.inputs = {};
    this.held = {};
    this.hasToken = false;
  }

  Form.prototype.draw = function () {
    var self = this, groups = {};
    var form = make("form", { novalidate: "", autocomplete: "off" });
    FIELDS.forEach(function (field) {
      if (!groups[field.group]) {
        groups[field.group] = form.appendChild(make("fieldset"));
        groups[field.group].appendChild(make("legend", {}, field.group));
      }
      groups[field.group].appendChild(self.row(field));
    });
    this.button = form.appendChild(make("button", { type: "submit" }, "Save"));
    this.list = form.appendChild(make("ul", { "class": "aitrail-told", role: "status" }));
    form.addEventListener("submit", function (event) { event.preventDefault(); self.save(); });
    this.root.textContent = "";
    this.root.appendChild(form);
  };

  Form.prototype.row = function (field) {
    var id = "aitrail-" + field.id, row = make("div", { "class": "aitrail-field" }), input;
    row.appendChild(make("label", { "for": id }, field.label));
    if (field.choices) {
      input = make("select", { id: id });
      field.choices.forEach(function (one) { input.appendChild(make("option", { value: one }, one)); });
    } else {
      input = make("input", {
        id: id, type: field.secret ? "password" : "text", spellcheck: "false",
        autocomplete: field.secret ? "new-password" : "off", placeholder: field.placeholder || ""
      });
    }
    input.setAttribute("aria-describedby", id + "-wrong " + id + "-help");
    row.appendChild(input);
    row.appendChild(make("div", { id: id + "-wrong", "class": "aitrail-wrong" }));
    row.appendChild(make("div", { id: id + "-help", "class": "aitrail-help" }, field.help || ""));
    this.inputs[field.id] = input;
    return row;
  };

  Form.prototype.tell = function (kind, text) {
    this.list.appendChild(make("li", { "class": kind }, text));
  };

  Form.prototype.load = function () {
    var self = this, entities = {};
    FIELDS.forEach(function (field) { if (field.entity) { entities[field.entity] = true; } });
    var reading = Object.keys(entities).map(function (entity) {
      return ask("GET", entity).then(function (told) { self.held[entity] = content(told); });
    });
    return Promise.all(reading.concat(stored().then(function (there) { self.hasToken = there; }))).then(
      function () { self.show(); },
      function (error) { self.button.disabled = true; self.tell("aitrail-bad", "The settings cannot be read. " + error.message); }
    );
  };

  Form.prototype.show = function () {
    var self = this;
    FIELDS.forEach(function (field) {
      var input = self.inputs[field.id];
      if (field.secret) {
        input.value = "";
        input.placeholder = self.hasToken ? "A token is stored; leave empty to keep it" : "";
        return;
      }
      var text = String(self.held[field.entity][field.key] || "");
      input.value = field.read ? field.read(text) : text;
      // A definition of somebody's own is kept unless an index is named.
      field.kept = Boolean(field.read && text && !input.value);
      if (field.kept) { input.placeholder = text; }
    });
  };

  Form.prototype.wrong = function () {
    var self = this, first = null;
    FIELDS.forEach(function (field) {
      var input = self.inputs[field.id], text = input.value.trim(), why = "";
      if (!text) {
        why = field.optional || field.kept || field.choices ? "" : "This is needed.";
      } else if (field.check) {
        why = field.check(text);
      }
      document.getElementById(input.id + "-wrong").textContent = why;
      input.setAttribute("aria-invalid", why ? "true" : "false");
      if (why && !first) { first = input; }
    });
    if (!first && this.inputs.url.value.trim() && !this.hasToken && !this.inputs.token.value.trim()) {
      first = this.inputs.token;
      document.getElementById("aitrail-token-wrong").textContent = "An address needs a token.";
      first.setAttribute("aria-invalid", "true");
    }
    if (first) { first.focus(); }
    return Boolean(first);
  };

  Form.prototype.changes = function () {
    var self = this, changed = {};
    FIELDS.forEach(function (field) {
      var text = self.inputs[field.id].value.trim();
      if (field.secret || (field.kept && !text)) { return; }
      var value = field.write ? field.write(text) : text;
      if (value !== String(self.held[field.entity][field.key] || "")) {
        (changed[field.entity] = changed[field.entity] || {})[field.key] = value;
      }
    });
    return changed;
  };

  Form.prototype.save = function () {
    var self = this;
    this.list.textContent = "";
    if (this.wrong()) { return; }
    this.button.disabled = true;
    var changed = this.changes();
    var work = Object.keys(changed).reduce(function (before, entity) {
      return before.then(function () { return ask("POST", entity, changed[entity]); });
    }, Promise.resolve());
    work.then(function () { return self.saveToken(); })
      .then(function () { return ask("POST", "apps/local/aitrail", { configured: "1" }); })
      .then(function () { return self.load(); })
      .then(function () { self.tell("", "Saved."); return self.look(); })
      .catch(function (error) {
        var help = error.status === 403 ? " Your role may not change the app: ask an administrator." : "";
        self.tell("aitrail-bad", "Not all was saved. " + error.message + help);
      })
      .then(function () { self.button.disabled = false; });
  };

  Form.prototype.saveToken = function () {
    var self = this, token = this.inputs.token.value.trim();
    this.inputs.token.value = "";
    if (!token) { return Promise.resolve(); }
    var entity = "storage/passwords/" + encodeURIComponent(REALM + ":" + NAME + ":");
    var saved = this.hasToken ? ask("POST", entity, { password: token }) :
      ask("POST", "storage/passwords", { realm: REALM, name: NAME, password: token });
    return saved.then(function () { self.hasToken = true; });
  };

  // An index of indexers that this search head does not manage is not known here: a word, not an error.
  Form.prototype.look = function () {
    var self = this, index = this.inputs.index.value.trim();
    if (!index) { return null; }
    return ask("GET", "data/indexes/" + encodeURIComponent(index)).catch(function (error) {
      if (error.status === 404) {
        self.tell("aitrail-warn", "This search head does not know the index " + index + ": see that your indexers do.");
      }
    });
  };

  function start() {
    var root = document.getElementById("aitrail-settings");
    if (!root) { return false; }
    var form = new Form(root);
    form.draw();
    form.load();
    return true;
  }

  // Splunk Web may run this before it has drawn the panel.
  if (!start()) {
    var watch = new MutationObserver(function () { if (start()) { watch.disconnect(); } });
    watch.observe(document.documentElement, { childList: true, subtree: true });
  }
})();
