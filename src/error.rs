//! What can go wrong, in one table: every failure of the program carries a [`Code`], and the code
//! decides the exit status, whether trying again may help, and its line in `docs/errors.md`.

use std::fmt;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

/// The result of everything that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($variant:ident $name:literal $exit:literal $retryable:literal $meaning:literal;)*) => {
        /// Kinds of failure. Names and exit statuses are a contract with scripts: they never change meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = $meaning] $variant,)* }

        impl Code {
            /// Every code, in the order of the table in `docs/errors.md`.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The name in JSON output and documentation.
            pub fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// The process's exit status.
            pub fn exit_status(self) -> u8 {
                match self { $(Code::$variant => $exit,)* }
            }

            /// Whether the same command may succeed later with nothing changed by the user.
            pub fn retryable(self) -> bool {
                match self { $(Code::$variant => $retryable,)* }
            }

            /// One sentence for the documentation.
            pub fn meaning(self) -> &'static str {
                match self { $(Code::$variant => $meaning,)* }
            }
        }
    };
}

codes! {
    Internal "INTERNAL" 1 false "a defect in mlx-cache itself; please report it";
    IoError "IO_ERROR" 1 false "a file or folder could not be read or written";
    ServerCrashed "SERVER_CRASHED" 1 true "a server that mlx-cache talked to stopped in mid-answer";
    InvalidRequest "INVALID_REQUEST" 2 false "the command line or a setting is not understood";
    ModelNotFound "MODEL_NOT_FOUND" 3 false "no model has that name";
    ModelAmbiguous "MODEL_AMBIGUOUS" 3 false "several models match that name";
    FileNotFound "FILE_NOT_FOUND" 3 false "a file that the command needs is not there";
    IntegrityFailed "INTEGRITY_FAILED" 4 false "content is damaged, incomplete or not what it says it is";
    InsufficientMemory "INSUFFICIENT_MEMORY" 5 false "the model and its cache do not fit into the free memory";
    InsufficientDisk "INSUFFICIENT_DISK" 5 false "the disk has too little free space";
    NetworkError "NETWORK_ERROR" 6 true "a network connection failed";
    HubUnavailable "HUB_UNAVAILABLE" 6 true "the model hub answers with errors";
    AccessDenied "ACCESS_DENIED" 6 false "the hub refuses access: a token or an accepted licence is missing";
    QuotaExceeded "QUOTA_EXCEEDED" 6 true "the hub asks to slow down";
    Offline "OFFLINE" 6 false "the network is needed but offline mode is on";
    HardwareIncompatible "HARDWARE_INCOMPATIBLE" 7 false "this machine lacks the asked device";
    ModelUnsupported "MODEL_UNSUPPORTED" 7 false "the model needs something that mlx-cache lacks";
    CapabilityMissing "CAPABILITY_MISSING" 7 false "the model cannot do what was asked";
    EmbeddingFailed "EMBEDDING_FAILED" 7 false "a text could not be embedded";
    BoundaryViolation "BOUNDARY_VIOLATION" 8 false "a path or link leads out of the folders it may touch";
    Locked "LOCKED" 9 true "another process holds what the command needs";
    Timeout "TIMEOUT" 9 true "an operation took longer than allowed";
    GenerationTimeout "GENERATION_TIMEOUT" 9 true "generation took longer than allowed";
    Interrupted "INTERRUPTED" 130 true "stopped by Ctrl-C or a termination signal";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failure: what failed, on which path or model, why, and what to do next.
///
/// Messages are lower case without a full stop and name the path or model; the hint is a full
/// imperative phrase in the same style.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    code: Code,
    message: String,
    hint: Option<String>,
    /// Boxed to keep the error small enough to return everywhere.
    details: Box<Map<String, Value>>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, details: Box::default(), source: None }
    }

    /// A failed operation on a path: `action` reads as in "cannot {action} {path}: {reason}".
    ///
    /// The code follows the kind of the I/O error: a missing file, a full disk, the rest.
    pub fn io(action: &str, path: &Path, error: io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::NotFound => Code::FileNotFound,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Code::InsufficientDisk
            }
            io::ErrorKind::Interrupted => Code::Interrupted,
            _ => Code::IoError,
        };
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => Some("check the permissions of the path and its folders"),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Some("free some disk space and try again")
            }
            io::ErrorKind::FileTooLarge => Some(
                "raise the limit on the size of files (ulimit -f), or choose another disk with MLX_CACHE_HOME",
            ),
            io::ErrorKind::ReadOnlyFilesystem => Some("choose a writable folder with MLX_CACHE_HOME"),
            _ => None,
        };
        let mut made = Self::new(code, format!("cannot {action} {}: {error}", path.display()))
            .detail("path", path.display().to_string());
        made.hint = hint.map(str::to_owned);
        made.source = Some(Box::new(error));
        made
    }

    /// A defect of ours, such as a broken invariant.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
            .hint("this is a defect in mlx-cache: please report it with the command you ran")
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a machine-readable fact to the JSON form.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }

    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Puts what was being done before the message: "{context}: {message}".
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    pub fn code(&self) -> Code {
        self.code
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub fn details(&self) -> &Map<String, Value> {
        &self.details
    }
}
