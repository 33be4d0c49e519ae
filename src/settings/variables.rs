//! Every environment variable the program reads, declared once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// One environment variable.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    pub name: &'static str,
    /// One sentence for the documentation.
    pub meaning: &'static str,
}

macro_rules! variables {
    ($($constant:ident $name:literal $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $constant: Variable = Variable { name: $name, meaning: $meaning };)*

        /// All of them, in the order of the documentation.
        pub const ALL: &[Variable] = &[$($constant,)*];
    };
}

variables! {
    HOME "HOME" "the user's folder, below which the store and other tools' caches lie by default";
    MLX_CACHE_HOME "MLX_CACHE_HOME" "where the store is; `~/.mlx-cache` without it";
    MLX_CACHE_MODEL "MLX_CACHE_MODEL" "the model of commands that are given none";
    MLX_CACHE_MEMORY_LIMIT "MLX_CACHE_MEMORY_LIMIT" "memory that a model and its cache may take, such as `8GB`";
    MLX_CACHE_OFFLINE "MLX_CACHE_OFFLINE" "`1` forbids every use of the network";
    MLX_CACHE_DEVICE "MLX_CACHE_DEVICE" "where to compute: `auto`, `gpu` or `cpu`";
    MLX_CACHE_THREADS "MLX_CACHE_THREADS" "how many threads compute on the CPU";
    MLX_CACHE_AUTO_PULL "MLX_CACHE_AUTO_PULL" "whether a missing model is fetched when it is needed: `ask`, `always` or `never`";
    MLX_CACHE_HTTP_TIMEOUT "MLX_CACHE_HTTP_TIMEOUT" "how many seconds to wait for a connection, an answer's first byte and its next one; 30 without it";
    MLX_CACHE_HTTP_RETRIES "MLX_CACHE_HTTP_RETRIES" "how often in a row to try again what brings nothing new; 5 without it";
    HF_HOME "HF_HOME" "Hugging Face's folder; `~/.cache/huggingface` without it";
    HF_HUB_CACHE "HF_HUB_CACHE" "Hugging Face's model cache; `hub` below `HF_HOME` without it";
    HUGGINGFACE_HUB_CACHE "HUGGINGFACE_HUB_CACHE" "the older name of `HF_HUB_CACHE`";
    XDG_CACHE_HOME "XDG_CACHE_HOME" "the folder that holds `huggingface` when `HF_HOME` is not set";
    HF_ENDPOINT "HF_ENDPOINT" "the model hub's address; `https://huggingface.co` without it";
    HF_TOKEN "HF_TOKEN" "the hub's access token; it never appears in any output";
    HF_TOKEN_PATH "HF_TOKEN_PATH" "the file that holds the token; `token` below `HF_HOME` without it";
    HF_HUB_OFFLINE "HF_HUB_OFFLINE" "the same as `MLX_CACHE_OFFLINE`, for all of Hugging Face's tools";
    HF_HUB_DISABLE_XET "HF_HUB_DISABLE_XET" "`1` fetches files of Xet storage over plain HTTP";
    OLLAMA_MODELS "OLLAMA_MODELS" "Ollama's models; `~/.ollama/models` without it";
    OLLAMA_HOST "OLLAMA_HOST" "the address of Ollama's server, which `bench --against` measures; `127.0.0.1:11434` without it. One on this machine is not the network that offline mode forbids";
    NO_COLOR "NO_COLOR" "any content switches colours off, unless `--color` is given";
    CLICOLOR_FORCE "CLICOLOR_FORCE" "any content but `0` switches colours on even where there is no terminal";
    TERM "TERM" "`dumb` switches colours off";
}

/// The environment at the start of the program, or one made for a test.
///
/// A variable that is set but empty counts as not set, as in the tools whose variables we honour.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    pub fn of_process() -> Self {
        Self(
            ALL.iter()
                .filter_map(|variable| Some((variable.name.into(), std::env::var_os(variable.name)?)))
                .collect(),
        )
    }

    pub fn raw(&self, variable: Variable) -> Option<&OsString> {
        self.0.get(&OsString::from(variable.name)).filter(|value| !value.is_empty())
    }

    /// The value as text; bytes that are not UTF-8 become replacement characters and fail where the value is parsed.
    pub fn text(&self, variable: Variable) -> Option<String> {
        self.raw(variable).map(|value| value.to_string_lossy().trim().to_owned())
    }

    /// The value as an absolute path, with `~/` standing for the user's folder.
    pub fn path(&self, variable: Variable) -> Option<PathBuf> {
        let path = PathBuf::from(self.raw(variable)?);
        if let (Ok(rest), Some(home)) = (path.strip_prefix("~"), self.raw(HOME)) {
            return Some(PathBuf::from(home).join(rest));
        }
        Some(std::path::absolute(&path).unwrap_or(path))
    }
}

#[cfg(test)]
impl Environment {
    pub fn set(&mut self, variable: Variable, value: &str) {
        self.0.insert(variable.name.into(), value.into());
    }
}

#[cfg(test)]
impl<const N: usize> From<[(Variable, &str); N]> for Environment {
    fn from(values: [(Variable, &str); N]) -> Self {
        Self(values.into_iter().map(|(variable, value)| (variable.name.into(), value.into())).collect())
    }
}
