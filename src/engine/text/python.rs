//! What chat templates expect of Python beyond what minijinja does: `json.dumps` and methods of strings.

use minijinja::value::{Kwargs, Rest, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Appends the mark and the code's last hexadecimal digits.
fn escape(text: &mut String, mark: &str, code: u32, digits: u32) {
    text.push_str(mark);
    text.extend((0..digits).rev().filter_map(|digit| char::from_digit(code >> (4 * digit) & 15, 16)));
}

fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => {
            if float.is_finite() {
                finite(float)
            } else {
                // Python prints inf and nan in lower case, as Rust does but for NaN.
                float.to_string().to_lowercase()
            }
        }
        _ => value.to_string(),
    }
}

/// The shortest digits that read back as the same number, with an exponent from 1e16 on and below 1e-4.
fn finite(float: f64) -> String {
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = float.to_string();
        if plain.contains('.') { plain } else { plain + ".0" }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.abs())
    }
}

fn items(value: &Value) -> Vec<Value> {
    value.try_iter().map(Iterator::collect).unwrap_or_default()
}

fn entries(value: &Value) -> Vec<(Value, Value)> {
    let entry = |key: Value| {
        let value = value.get_item(&key).unwrap_or_default();
        (key, value)
    };
    items(value).into_iter().map(entry).collect()
}

/// The filter `tojson` of transformers: `json.dumps` without escaping for HTML and, unless asked for,
/// without escaping to ASCII.
#[allow(clippy::needless_pass_by_value, reason = "minijinja hands named arguments over by value")]
pub(super) fn to_json(value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<Value, Error> {
    let mut positional = positional.0.into_iter();
    let mut argument = |name: &str| -> Result<Value, Error> {
        let given = positional.next().unwrap_or_default();
        Ok(named.get::<Option<Value>>(name)?.unwrap_or(given))
    };
    let ensure_ascii = argument("ensure_ascii")?;
    let indent = argument("indent")?;
    let separators = argument("separators")?;
    let sort_keys = argument("sort_keys")?;
    named.assert_all_used()?;

    let absent = |value: &Value| value.is_undefined() || value.is_none();
    let indent = match (absent(&indent), indent.as_str()) {
        (true, _) => None,
        (_, Some(text)) => Some(text.to_owned()),
        _ => Some(" ".repeat(u8::try_from(indent)?.into())),
    };
    let (item, key) = match items(&separators).as_slice() {
        [item, key] => (item.to_string(), key.to_string()),
        _ if absent(&separators) => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        _ => return Err(Error::new(ErrorKind::InvalidOperation, "separators should be a pair of texts")),
    };
    let writer = JsonWriter {
        ensure_ascii: ensure_ascii.is_true(),
        sort_keys: sort_keys.is_true(),
        indent,
        item,
        key,
    };
    let mut json = String::new();
    writer.write(value, 0, &mut json)?;
    Ok(Value::from(json))
}

struct JsonWriter {
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    item: String,
    key: String,
}

impl JsonWriter {
    /// Far below what the stack holds, far above what any message holds.
    const MAX_DEPTH: usize = 100;

    fn write(&self, value: &Value, depth: usize, json: &mut String) -> Result<(), Error> {
        if depth > Self::MAX_DEPTH {
            return Err(Error::new(ErrorKind::BadSerialization, "a value is nested too deeply for JSON"));
        }
        match value.kind() {
            ValueKind::None => *json += "null",
            ValueKind::Bool => *json += if value.is_true() { "true" } else { "false" },
            ValueKind::Number => *json += &json_number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), json),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = items(value);
                self.list('[', ']', &items, depth, json, |item, json| self.write(item, depth + 1, json))?;
            }
            ValueKind::Map => {
                let mut entries = entries(value);
                if self.sort_keys {
                    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.list('{', '}', &entries, depth, json, |(key, value), json| {
                    match key.kind() {
                        ValueKind::None => self.string("null", json),
                        ValueKind::Bool => self.string(if key.is_true() { "true" } else { "false" }, json),
                        ValueKind::Number => self.string(&number(key), json),
                        _ => self.string(&key.to_string(), json),
                    }
                    *json += &self.key;
                    self.write(value, depth + 1, json)
                })?;
            }
            kind => {
                return Err(Error::new(
                    ErrorKind::BadSerialization,
                    format!("a value of the kind {kind} cannot be JSON"),
                ));
            }
        }
        Ok(())
    }

    fn list<T>(
        &self,
        open: char,
        close: char,
        items: &[T],
        depth: usize,
        json: &mut String,
        mut write: impl FnMut(&T, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        json.push(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                *json += &self.item;
            }
            self.line(depth + 1, json);
            write(item, json)?;
        }
        if !items.is_empty() {
            self.line(depth, json);
        }
        json.push(close);
        Ok(())
    }

    fn line(&self, depth: usize, json: &mut String) {
        if let Some(indent) = &self.indent {
            json.push('\n');
            *json += &indent.repeat(depth);
        }
    }

    fn string(&self, text: &str, json: &mut String) {
        json.push('"');
        for c in text.chars() {
            match c {
                '"' => *json += "\\\"",
                '\\' => *json += "\\\\",
                '\n' => *json += "\\n",
                '\r' => *json += "\\r",
                '\t' => *json += "\\t",
                '\u{8}' => *json += "\\b",
                '\u{c}' => *json += "\\f",
                c if c < ' ' || self.ensure_ascii && !(' '..='~').contains(&c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        escape(json, "\\u", u32::from(*unit), 4);
                    }
                }
                c => json.push(c),
            }
        }
        json.push('"');
    }
}

fn json_number(value: &Value) -> String {
    match number(value).as_str() {
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        "nan" => "NaN".to_owned(),
        number => number.to_owned(),
    }
}

/// Python's methods, those that minijinja-contrib lacks included.
pub(super) fn method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return unknown_method_callback(state, value, method, args) };
    match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "rsplit" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
            Ok(rsplit(text, separator, most)?.into_iter().map(Value::from).collect())
        }
        _ => unknown_method_callback(state, value, method, args),
    }
}

fn rsplit<'a>(text: &'a str, separator: Option<&str>, most: Option<i64>) -> Result<Vec<&'a str>, Error> {
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    let mut rest = if separator.is_none() { text.trim() } else { text };
    if separator.is_some_and(str::is_empty) {
        return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
    }
    while parts.len() < most {
        let split = match separator {
            Some(separator) => rest.rsplit_once(separator),
            None => rest.rsplit_once(char::is_whitespace),
        };
        let Some((left, right)) = split else { break };
        parts.push(right);
        rest = if separator.is_none() { left.trim_end() } else { left };
    }
    if separator.is_some() || !rest.is_empty() {
        parts.push(rest);
    }
    parts.reverse();
    Ok(parts)
}
