//! The settings in effect: environment before config.toml before defaults, each with its origin.
//! Flags come before all of them, in the command that has the flag.

pub mod edit;
pub mod file;
pub mod value;
pub mod variables;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::request::DeviceChoice;
use crate::error::{Code, Error, Result};

use self::file::ConfigFile;
use self::value::{
    AutoPull, Origin, Setting, Token, parse_auto_pull, parse_bool, parse_bytes, parse_device, parse_name,
    parse_retries, parse_seconds, parse_threads,
};
use self::variables::{self as var, Environment, Variable};

/// Everything that can be set without a flag.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The store.
    pub home: Setting<PathBuf>,
    /// The model of commands that are given none.
    pub default_model: Setting<Option<String>>,
    /// Bytes that a model and its cache may take; `None`: what the machine has free.
    pub memory_limit: Setting<Option<u64>>,
    /// Whether every use of the network is forbidden.
    pub offline: Setting<bool>,
    pub device: Setting<DeviceChoice>,
    /// Threads that compute on the CPU; `None`: the physical cores.
    pub threads: Setting<Option<usize>>,
    /// The user's short names of models and what they stand for.
    pub aliases: BTreeMap<String, String>,
    /// Hugging Face's model cache, whether it exists or not.
    pub hf_hub_cache: Setting<PathBuf>,
    /// The hub's address, without a slash at its end.
    pub hf_endpoint: Setting<String>,
    pub hf_token: Setting<Option<Token>>,
    /// Whether files of Xet storage come over plain HTTP.
    pub hf_disable_xet: Setting<bool>,
    /// Whether a missing model is fetched when a command needs it.
    pub auto_pull: Setting<AutoPull>,
    /// How long to wait for a connection, an answer's first byte, and its next one.
    pub http_timeout: Setting<Duration>,
    /// How often in a row to try again what brings nothing new.
    pub http_retries: Setting<u32>,
    /// Ollama's models, whether they exist or not.
    pub ollama_models: Setting<PathBuf>,
    /// LM Studio's models, whether they exist or not.
    pub lmstudio_models: Setting<PathBuf>,
}

/// Settings as far as they could be read, and what could not be.
#[derive(Debug)]
pub struct Loaded {
    /// In place of a broken value stands the next one in order: file, then default.
    pub settings: Settings,
    /// The first broken value, if any; a command that does not tell about it must not go on.
    pub problem: Option<Error>,
}

impl Settings {
    /// Works out every setting. Fails only where not even the store's place can be told.
    pub fn load(environment: &Environment) -> Result<Loaded> {
        let home = store_home(environment)?;
        let (file, mut problem) = match ConfigFile::read(&ConfigFile::path_in(&home.value)) {
            Ok(file) => (file, None),
            Err(error) => (ConfigFile::default(), Some(error)),
        };
        let mut reader = Reader { environment, problem: problem.take() };
        let hf_home = hf_home(environment);
        let settings = Self {
            default_model: reader.optional(&[var::MLX_CACHE_MODEL], parse_name, file.default_model),
            memory_limit: reader.optional(&[var::MLX_CACHE_MEMORY_LIMIT], parse_bytes, file.memory_limit),
            offline: reader.with_default(
                &[var::MLX_CACHE_OFFLINE, var::HF_HUB_OFFLINE],
                parse_bool,
                file.offline,
                false,
            ),
            device: reader.with_default(
                &[var::MLX_CACHE_DEVICE],
                parse_device,
                file.device,
                DeviceChoice::default(),
            ),
            threads: reader.optional(&[var::MLX_CACHE_THREADS], parse_threads, file.threads),
            aliases: file.aliases,
            hf_hub_cache: first_path(environment, &[var::HF_HUB_CACHE, var::HUGGINGFACE_HUB_CACHE])
                .unwrap_or_else(|| Setting { value: hf_home.value.join("hub"), origin: hf_home.origin }),
            hf_endpoint: reader.with_default(
                &[var::HF_ENDPOINT],
                parse_endpoint,
                None,
                "https://huggingface.co".to_owned(),
            ),
            hf_token: token(environment, &hf_home.value),
            hf_disable_xet: reader.with_default(&[var::HF_HUB_DISABLE_XET], parse_bool, None, false),
            auto_pull: reader.with_default(
                &[var::MLX_CACHE_AUTO_PULL],
                parse_auto_pull,
                file.auto_pull,
                AutoPull::default(),
            ),
            http_timeout: reader.with_default(
                &[var::MLX_CACHE_HTTP_TIMEOUT],
                parse_seconds,
                None,
                Duration::from_secs(30),
            ),
            http_retries: reader.with_default(&[var::MLX_CACHE_HTTP_RETRIES], parse_retries, None, 5),
            ollama_models: first_path(environment, &[var::OLLAMA_MODELS])
                .unwrap_or_else(|| Setting::default(user_folder(environment).join(".ollama/models"))),
            lmstudio_models: Setting::default(lmstudio_models(&user_folder(environment))),
            home,
        };
        Ok(Loaded { settings, problem: reader.problem })
    }

    /// The store's config.toml, whether it exists or not.
    pub fn config_file(&self) -> PathBuf {
        ConfigFile::path_in(&self.home.value)
    }
}

/// Reads values from the environment, keeping the first problem.
struct Reader<'a> {
    environment: &'a Environment,
    problem: Option<Error>,
}

impl Reader<'_> {
    fn optional<T>(
        &mut self,
        variables: &[Variable],
        parse: impl Fn(&str) -> Result<T>,
        file: Option<T>,
    ) -> Setting<Option<T>> {
        for variable in variables {
            let Some(text) = self.environment.text(*variable) else { continue };
            match parse(&text) {
                Ok(value) => return Setting { value: Some(value), origin: Origin::Environment(*variable) },
                Err(error) => {
                    self.problem
                        .get_or_insert(error.context(variable.name).detail("variable", variable.name));
                }
            }
        }
        let origin = if file.is_some() { Origin::File } else { Origin::Default };
        Setting { value: file, origin }
    }

    fn with_default<T>(
        &mut self,
        variables: &[Variable],
        parse: impl Fn(&str) -> Result<T>,
        file: Option<T>,
        default: T,
    ) -> Setting<T> {
        let Setting { value, origin } = self.optional(variables, parse, file);
        Setting { value: value.unwrap_or(default), origin }
    }
}

fn store_home(environment: &Environment) -> Result<Setting<PathBuf>> {
    if let Some(home) = first_path(environment, &[var::MLX_CACHE_HOME]) {
        return Ok(home);
    }
    match environment.path(var::HOME) {
        Some(home) => Ok(Setting::default(home.join(".mlx-cache"))),
        None => Err(Error::new(
            Code::InvalidRequest,
            "cannot tell where the store is: neither MLX_CACHE_HOME nor HOME is set",
        )
        .hint("set MLX_CACHE_HOME to the folder that shall hold the store")),
    }
}

/// The user's folder. Without one other tools' caches cannot be told either, and are looked for
/// below a path that does not exist.
fn user_folder(environment: &Environment) -> PathBuf {
    environment.path(var::HOME).unwrap_or_else(|| PathBuf::from("/nonexistent"))
}

fn first_path(environment: &Environment, variables: &[Variable]) -> Option<Setting<PathBuf>> {
    variables.iter().find_map(|variable| {
        let value = environment.path(*variable)?;
        Some(Setting { value, origin: Origin::Environment(*variable) })
    })
}

fn hf_home(environment: &Environment) -> Setting<PathBuf> {
    first_path(environment, &[var::HF_HOME])
        .or_else(|| {
            let mut cache = first_path(environment, &[var::XDG_CACHE_HOME])?;
            cache.value.push("huggingface");
            Some(cache)
        })
        .unwrap_or_else(|| Setting::default(user_folder(environment).join(".cache/huggingface")))
}

/// The variable, else the file that `hf auth login` writes.
fn token(environment: &Environment, hf_home: &Path) -> Setting<Option<Token>> {
    if let Some(token) = environment.text(var::HF_TOKEN).and_then(|text| Token::read(&text)) {
        return Setting { value: Some(token), origin: Origin::Environment(var::HF_TOKEN) };
    }
    let file = first_path(environment, &[var::HF_TOKEN_PATH])
        .unwrap_or_else(|| Setting::default(hf_home.join("token")));
    // A token file that cannot be read is as good as none: the hub then answers as to a stranger.
    let value = fs::read_to_string(&file.value).ok().and_then(|text| Token::read(&text));
    Setting { value, origin: file.origin }
}

/// LM Studio's folder moved from `~/.cache/lm-studio` to `~/.lmstudio`; a pointer file in the
/// user's folder says where it is on machines that have run a recent version.
fn lmstudio_models(user: &Path) -> PathBuf {
    let pointer = fs::read_to_string(user.join(".lmstudio-home-pointer")).ok();
    let pointed = pointer.map(|text| PathBuf::from(text.trim())).filter(|path| path.is_absolute());
    let old = user.join(".cache/lm-studio");
    let current = user.join(".lmstudio");
    pointed.unwrap_or(if !current.exists() && old.exists() { old } else { current }).join("models")
}

fn parse_endpoint(text: &str) -> Result<String> {
    let address = text.trim_end_matches('/');
    let host = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic()) => {
            Ok(address.to_owned())
        }
        _ => Err(Error::new(
            Code::InvalidRequest,
            format!("'{}' is not the address of a hub", text.escape_debug()),
        )
        .hint("write it as https://host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(values: &[(Variable, &str)], config: &str) -> (tempfile::TempDir, Loaded) {
        let home = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(home.path().join(".mlx-cache")).expect("the store");
        fs::write(home.path().join(".mlx-cache/config.toml"), config).expect("config.toml");
        let mut environment = Environment::from([(var::HOME, home.path().to_str().expect("UTF-8"))]);
        for (variable, value) in values {
            environment.set(*variable, value);
        }
        let loaded = Settings::load(&environment).expect("HOME is set");
        (home, loaded)
    }

    #[test]
    fn the_environment_comes_before_the_file_and_the_file_before_the_default() {
        let (_home, loaded) = load(&[(var::MLX_CACHE_DEVICE, "gpu")], "device = 'cpu'\nthreads = 2\n");
        let settings = loaded.settings;
        assert!(loaded.problem.is_none());
        assert_eq!(settings.device.value, DeviceChoice::Gpu);
        assert!(matches!(settings.device.origin, Origin::Environment(v) if v.name == "MLX_CACHE_DEVICE"));
        assert_eq!(settings.threads.value, Some(2));
        assert!(matches!(settings.threads.origin, Origin::File));
        assert!(matches!(settings.offline.origin, Origin::Default));
    }

    #[test]
    fn a_broken_variable_is_a_problem_and_the_rest_is_still_there() {
        let (_home, loaded) = load(&[(var::MLX_CACHE_THREADS, "many")], "threads = 2\noffline = true\n");
        let problem = loaded.problem.expect("not a number");
        assert!(problem.message().starts_with("MLX_CACHE_THREADS: "), "{}", problem.message());
        assert_eq!(loaded.settings.threads.value, Some(2));
        assert!(loaded.settings.offline.value);
    }

    #[test]
    fn without_any_home_the_store_cannot_be_told() {
        let error = Settings::load(&Environment::default()).expect_err("no home");
        assert_eq!(error.code(), Code::InvalidRequest);
    }

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        let (home, loaded) = load(&[(var::MLX_CACHE_HOME, ""), (var::MLX_CACHE_OFFLINE, "")], "");
        assert_eq!(loaded.settings.home.value, home.path().join(".mlx-cache"));
        assert!(!loaded.settings.offline.value);
    }

    #[test]
    fn hugging_face_paths_follow_its_own_order() {
        let (home, loaded) = load(&[], "");
        assert_eq!(loaded.settings.hf_hub_cache.value, home.path().join(".cache/huggingface/hub"));
        let (_home, loaded) = load(&[(var::XDG_CACHE_HOME, "/x")], "");
        assert_eq!(loaded.settings.hf_hub_cache.value, Path::new("/x/huggingface/hub"));
        let (_home, loaded) = load(&[(var::XDG_CACHE_HOME, "/x"), (var::HF_HOME, "~/hf")], "");
        assert!(loaded.settings.hf_hub_cache.value.ends_with("hf/hub"));
        let (_home, loaded) = load(&[(var::HF_HOME, "/h"), (var::HF_HUB_CACHE, "/c")], "");
        assert_eq!(loaded.settings.hf_hub_cache.value, Path::new("/c"));
    }

    #[test]
    fn a_token_file_is_found_where_hugging_face_writes_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("token"), "hf_x\n").expect("the token");
        let (_home, loaded) = load(&[(var::HF_HOME, folder.path().to_str().expect("UTF-8"))], "");
        assert!(loaded.settings.hf_token.value.is_some());
    }

    #[test]
    fn an_endpoint_must_be_an_address() {
        assert_eq!(parse_endpoint("https://hub.example/").expect("an address"), "https://hub.example");
        for text in ["hub.example", "https://", "file:///etc/passwd", "https://a b"] {
            assert!(parse_endpoint(text).is_err(), "{text}");
        }
    }
}
