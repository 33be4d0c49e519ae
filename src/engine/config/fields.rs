//! Typed access to the fields of a config.json.

use std::path::Path;

use serde_json::{Map, Value};

use crate::engine::format::file::damaged;
use crate::error::{Error, Result};

/// An object of a config.json; `null` counts as left out, except where [`Fields::has`] asks.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: &'a Path,
    /// The object's own name and a dot, for messages.
    prefix: &'a str,
}

impl<'a> Fields<'a> {
    pub fn new(map: &'a Map<String, Value>, path: &'a Path) -> Self {
        Self { map, path, prefix: "" }
    }

    /// The file, for messages.
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// Whether the field is there, be it null.
    pub fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A field of another type than `what` is INTEGRITY_FAILED.
    fn typed<T>(&self, name: &str, what: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.senseless(name, value, what))
    }

    fn senseless(&self, name: &str, value: &Value, what: &str) -> Error {
        let shown: String = value.to_string().chars().take(64).collect();
        let reason = format!("has a {}{name} that makes no sense: {shown} is not {what}", self.prefix);
        damaged(self.path, &reason)
    }

    pub fn number(&self, name: &str) -> Result<Option<usize>> {
        self.typed(name, "a whole number", |value| usize::try_from(value.as_u64()?).ok())
    }

    pub fn required(&self, name: &str) -> Result<usize> {
        self.number(name)?.ok_or_else(|| damaged(self.path, &format!("does not say {name}")))
    }

    pub fn float(&self, name: &str) -> Result<Option<f64>> {
        self.typed(name, "a number", Value::as_f64)
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.typed(name, "a text", Value::as_str)
    }

    pub fn numbers(&self, name: &str) -> Result<Option<Vec<usize>>> {
        self.typed(name, "a list of whole numbers", |value| {
            value.as_array()?.iter().map(|one| usize::try_from(one.as_u64()?).ok()).collect()
        })
    }

    pub fn floats(&self, name: &str) -> Result<Option<Vec<f64>>> {
        self.typed(name, "a list of numbers", |value| value.as_array()?.iter().map(Value::as_f64).collect())
    }

    pub fn texts(&self, name: &str) -> Result<Option<Vec<&'a str>>> {
        self.typed(name, "a list of texts", |value| value.as_array()?.iter().map(Value::as_str).collect())
    }

    /// A nested object; `prefix` is its name and a dot.
    pub fn object(&self, name: &str, prefix: &'a str) -> Result<Option<Self>> {
        let map = self.typed(name, "an object", Value::as_object)?;
        Ok(map.map(|map| Self { map, path: self.path, prefix }))
    }

    /// One token id or a list of them; negative ones stand for none.
    pub fn token_ids(&self, name: &str) -> Result<Vec<i64>> {
        let ids = self.typed(name, "a token or a list of tokens", |value| match value {
            Value::Array(several) => several.iter().map(Value::as_i64).collect(),
            one => one.as_i64().map(|id| vec![id]),
        });
        Ok(ids?.unwrap_or_default())
    }
}
