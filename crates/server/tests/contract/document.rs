//! The document as the walk reads it.

use serde_json::{Map, Value, json};

/// One operation at one of its mounts.
pub struct Operation {
    pub id: String,
    /// Upper case.
    pub verb: String,
    /// Template, with its mount.
    pub path: String,
    pub keyed: bool,
    pub whole: Value,
    schemas: Value,
}

/// Every operation of the document, once a mount.
pub fn operations() -> Vec<Operation> {
    let document = server::openapi::document();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let servers = item["servers"].as_array().or(document["servers"].as_array()).unwrap();
        for (verb, operation) in item.as_object().unwrap().iter().filter(|(verb, _)| *verb != "servers") {
            for server in servers {
                let mount = server["url"].as_str().unwrap().trim_end_matches('/');
                found.push(Operation {
                    id: operation["operationId"].as_str().unwrap().to_owned(),
                    verb: verb.to_uppercase(),
                    path: format!("{mount}{path}"),
                    keyed: operation["security"].is_array(),
                    whole: operation.clone(),
                    schemas: document["components"]["schemas"].clone(),
                });
            }
        }
    }
    found
}

impl Operation {
    pub fn name(&self) -> String {
        format!("{} {}", self.verb, self.path)
    }

    /// The path with its parameters filled in.
    pub fn filled(&self, id: &str) -> String {
        let of_pool = self.path.contains("/pools/");
        let path = self.path.replace("{id}", id).replace("{name}", if of_pool { "pool" } else { id });
        path.replace("{port}", "80").replace("{path}", "x")
    }

    /// Whether it only ever answers 501.
    pub fn refused(&self) -> bool {
        let responses = self.whole["responses"].as_object().unwrap();
        !responses.keys().any(|status| status == "default" || status.starts_with('2'))
    }

    /// Codes that are documented for a status.
    pub fn codes(&self, status: u16) -> Vec<String> {
        let answer = &self.whole["responses"][status.to_string()];
        let codes = &answer["content"]["application/json"]["schema"]["properties"]["code"]["enum"];
        codes.as_array().into_iter().flatten().map(|code| code.as_str().unwrap().to_owned()).collect()
    }

    /// Parameters of a place: name and schema.
    pub fn parameters(&self, place: &str) -> Vec<(String, Value)> {
        let all = self.whole["parameters"].as_array().unwrap().iter().filter(|p| p["in"] == place);
        all.map(|p| (p["name"].as_str().unwrap().to_owned(), p["schema"].clone())).collect()
    }

    /// Schema of the body, where it takes one.
    pub fn body(&self) -> Option<Value> {
        let schema = self.whole.pointer("/requestBody/content/application~1json/schema")?;
        Some(self.resolved(schema))
    }

    /// Largest body that is documented.
    pub fn body_bytes(&self) -> usize {
        let words = self.whole["requestBody"]["description"].as_str().unwrap();
        words.split_whitespace().find_map(|word| word.parse().ok()).expect("a number of bytes")
    }

    /// A schema, followed to where it stands.
    fn resolved(&self, schema: &Value) -> Value {
        let referred = schema.get("$ref").or_else(|| schema["anyOf"].as_array()?.iter().find_map(|s| s.get("$ref")));
        match referred.and_then(Value::as_str) {
            Some(name) => self.schemas[name.rsplit('/').next().unwrap()].clone(),
            None => schema.clone(),
        }
    }

    /// Members of the body, by path, with their resolved schemas: two levels deep.
    pub fn members(&self) -> Vec<(Vec<String>, Value)> {
        let Some(body) = self.body() else { return Vec::new() };
        let mut found = Vec::new();
        for (name, schema) in properties(&body) {
            let schema = self.resolved(&schema);
            for (inner, inner_schema) in properties(&schema) {
                found.push((vec![name.clone(), inner], self.resolved(&inner_schema)));
            }
            found.push((vec![name], schema));
        }
        if let Some(values) = body.get("additionalProperties").filter(|v| v.is_object()) {
            found.push((vec!["key".to_owned()], values.clone()));
        }
        found
    }

    /// Paths of the members that must be there: two levels deep.
    pub fn required(&self) -> Vec<Vec<String>> {
        let Some(body) = self.body() else { return Vec::new() };
        let names = |schema: &Value| -> Vec<String> {
            schema["required"].as_array().into_iter().flatten().map(|n| n.as_str().unwrap().to_owned()).collect()
        };
        let mut found: Vec<_> = names(&body).into_iter().map(|name| vec![name]).collect();
        for (name, schema) in properties(&body) {
            let inner = names(&self.resolved(&schema));
            found.extend(inner.into_iter().map(|inner| vec![name.clone(), inner]));
        }
        found
    }
}

fn properties(schema: &Value) -> Map<String, Value> {
    schema["properties"].as_object().cloned().unwrap_or_default()
}

/// A value that a schema's type does not allow, if it has a type.
pub fn wrong(schema: &Value) -> Option<Value> {
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let wrong = [("integer", json!("soon")), ("string", json!(5)), ("object", json!("text")), ("array", json!("text"))];
    let boolean = ("boolean", json!("perhaps"));
    wrong.into_iter().chain([boolean]).find(|(kind, _)| types.contains(kind)).map(|(_, value)| value)
}
