//! JSON schemas, as the grammar library takes them.

use serde_json::{Map, Value, json};

use crate::engine::request::Format;
use crate::error::{Code, Error, Result};

/// The key under which the library takes options in a schema. Those of a file are not asked: some of
/// them let an answer break its schema.
const OPTIONS: &str = "x-guidance";

/// The schema of a format, with our options. Blanks are where Python's `json.dumps` puts them, and
/// nowhere else: a model at a high temperature could go on with them for ever.
pub(super) fn prepared(format: &Format) -> Result<Value> {
    let mut schema = match format {
        Format::Json => object(json!({"type": ["object", "array"]})),
        Format::Schema { schema: Value::Object(schema), .. } => schema.clone(),
        Format::Schema { schema: Value::Bool(true), .. } => Map::new(),
        Format::Schema { schema, .. } => {
            let reason = if schema.is_boolean() { "nothing is valid under it" } else { "it is no object" };
            return Err(refused(format, reason));
        }
    };
    schema.insert(
        OPTIONS.to_owned(),
        json!({"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": false}),
    );
    Ok(Value::Object(schema))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// A schema that cannot be followed.
pub(super) fn refused(format: &Format, reason: &str) -> Error {
    // The library ends some messages with lines for its developers, and quotes long values.
    const LONGEST: usize = 300;
    let reason = reason.replace("\n<non-verbose/>", "");
    let line = reason.lines().next().unwrap_or_default();
    let mut shown: String = line.chars().take(LONGEST).collect();
    if let Some(first) = shown.chars().next() {
        shown.replace_range(..first.len_utf8(), &first.to_lowercase().to_string());
    }
    Error::new(
        Code::InvalidRequest,
        format!("the schema {} cannot be followed: {}", format.name(), shown.trim_end_matches('.')),
    )
    .hint("simplify the schema; docs/generation.md lists what formats can hold")
    .detail("schema", format.name())
}
