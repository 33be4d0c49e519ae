//! Conversations in files.

use std::io::Read;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::commands::run::parameters::Parameters;
use crate::engine::request::Message;
use crate::error::{Code, Error, Result};
use crate::fs::{open_regular, write_atomic};

/// Version of the file's form; it grows when a field changes its meaning or goes.
const SCHEMA: u32 = 1;
/// No conversation that fits into a context comes near.
const LARGEST: u64 = 64 << 20;

/// A conversation as `/save` writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SavedChat {
    /// Version of this form: 1.
    pub schema: u32,
    /// The model that answered.
    pub model: String,
    /// The system message, if there is one.
    pub system: Option<String>,
    /// How answers were made.
    pub parameters: Parameters,
    /// What was said, `user` and `assistant` in turn.
    pub messages: Vec<SavedMessage>,
}

/// One turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SavedMessage {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: String,
}

/// Who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    User,
    Assistant,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

impl SavedChat {
    pub fn of(model: &str, system: Option<&str>, parameters: &Parameters, messages: &[Message]) -> Self {
        let saved = |message: &Message| SavedMessage {
            role: if message.role == Role::User.name() { Role::User } else { Role::Assistant },
            content: message.content.clone(),
        };
        Self {
            schema: SCHEMA,
            model: model.to_owned(),
            system: system.map(str::to_owned),
            parameters: parameters.clone(),
            messages: messages.iter().map(saved).collect(),
        }
    }

    /// The turns, as the engine takes them.
    pub fn turns(&self) -> Vec<Message> {
        self.messages.iter().map(|turn| Message::new(turn.role.name(), turn.content.clone())).collect()
    }

    /// Writes the conversation, whole or not at all. A file that holds something else is not replaced.
    pub fn write(&self, path: &Path) -> Result<()> {
        let path = absolute(path)?;
        if path.symlink_metadata().is_ok() {
            Self::read(&path).map_err(|_| {
                Error::new(
                    Code::InvalidRequest,
                    format!("{} is there and holds no conversation, so it is not replaced", path.display()),
                )
                .hint("choose another name")
            })?;
        }
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::internal(format!("cannot write a conversation: {error}")))?;
        text.push('\n');
        write_atomic(&path, text.as_bytes(), 0o600)
    }

    /// Reads what [`SavedChat::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        let (file, _) = open_regular(path)?;
        let mut text = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut text).map_err(|error| Error::io("read", path, error))?;
        let unreadable = |reason: String| {
            Error::new(Code::InvalidRequest, format!("{} holds no conversation: {reason}", path.display()))
                .hint("give a file that /save wrote")
        };
        if text.len() as u64 > LARGEST {
            return Err(unreadable("it is too large".to_owned()));
        }
        let saved: Self = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
        if saved.schema != SCHEMA {
            return Err(unreadable(format!("its form {} is unknown here", saved.schema)));
        }
        saved.parameters.check().map_err(|error| unreadable(error.message().to_owned()))?;
        Ok(saved)
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::io("write", path, error))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn saved() -> SavedChat {
        let messages = [Message::new("user", "Hi"), Message::new("assistant", "Hello!\n\"…\"")];
        SavedChat::of("tiny", Some("Be brief."), &Parameters::default(), &messages)
    }

    #[test]
    fn what_is_written_is_read_again_and_is_nobody_elses() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("chat.json");
        saved().write(&path).expect("written");
        saved().write(&path).expect("replaced");
        assert_eq!(SavedChat::read(&path).expect("read"), saved());
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 1);
    }

    #[test]
    fn a_file_that_holds_something_else_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("thesis.txt");
        fs::write(&path, "years of work").expect("written");
        let error = saved().write(&path).expect_err("not replaced");
        assert!(error.message().contains("thesis.txt"));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "years of work");
    }

    #[test]
    fn files_that_hold_no_conversation_are_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("chat.json");
        let good = serde_json::to_string(&saved()).expect("JSON");
        for bad in [
            String::new(),
            "{}".to_owned(),
            good.replacen("\"schema\":1", "\"schema\":2", 1),
            good.replacen("\"user\"", "\"root\"", 1),
            good.replacen("0.8", "-1", 1),
            good[..good.len() / 2].to_owned(),
        ] {
            fs::write(&path, &bad).expect("written");
            let error = SavedChat::read(&path).expect_err(&bad);
            assert_eq!(error.code(), Code::InvalidRequest);
            assert!(error.message().contains("chat.json"), "{}", error.message());
        }
        assert_eq!(SavedChat::read(folder.path()).expect_err("a folder").code(), Code::IoError);
        let none = SavedChat::read(&folder.path().join("none")).expect_err("nothing");
        assert_eq!(none.code(), Code::FileNotFound);
    }
}
