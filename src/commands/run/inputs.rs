//! What a request takes from flags and files beside its prompt: template variables, tools, the format.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::parameters::Parameters;
use crate::cli::run::{RunArgs, TemplateArgs};
use crate::engine::request::{Format, GenerateRequest, Prompt, TemplateArguments};
use crate::error::{Code, Error, Result};
use crate::fs::open_regular;
use crate::report::run::SamplingReport;

/// No tools or schema that a model can follow come near.
const LARGEST: u64 = 1 << 20;

/// Variables that are given by other means.
const RESERVED: [&str; 4] = ["messages", "tools", "documents", "add_generation_prompt"];

/// What flags and files say about each answer.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    pub template: TemplateArguments,
    pub format: Option<Format>,
    /// Whether reasoning is kept from the user.
    pub hide_thinking: bool,
    /// How many alternatives are told with each token.
    pub logprobs: Option<usize>,
}

impl Inputs {
    /// Reads the files.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, `IO_ERROR`, or `INVALID_REQUEST` naming the file or flag.
    pub fn of(args: &RunArgs) -> Result<Self> {
        let format = match args.format.as_deref() {
            None => None,
            Some("json") => Some(Format::Json),
            Some(path) => Some(Format::Schema {
                name: path.to_owned(),
                schema: json(Path::new(path), "a JSON schema")?,
            }),
        };
        Ok(Self {
            template: template(&args.template)?,
            format,
            hide_thinking: args.template.hide_thinking,
            logprobs: args.sampling.logprobs.map(|count| count as usize),
        })
    }
}

impl Inputs {
    /// The request for an answer to this prompt, and its sampling with the seed.
    pub fn request(&self, prompt: Prompt, parameters: &Parameters) -> (GenerateRequest, SamplingReport) {
        let sampling = parameters.draw();
        let request = GenerateRequest {
            prompt,
            template: self.template.clone(),
            format: self.format.clone(),
            max_tokens: parameters.max_tokens,
            sampling: sampling.options,
            logit_bias: sampling.logit_bias.clone(),
            logprobs: self.logprobs,
            stop: parameters.stop.clone(),
        };
        (request, sampling)
    }
}

fn template(args: &TemplateArgs) -> Result<TemplateArguments> {
    let mut arguments = TemplateArguments::default();
    if args.think || args.no_think {
        arguments.think = Some(args.think);
    }
    if let Some(path) = &args.tools {
        arguments.tools = Some(match json(path, "an array of tools")? {
            Value::Array(tools) if tools.iter().all(Value::is_object) => tools,
            _ => {
                return Err(Error::new(
                    Code::InvalidRequest,
                    format!("{} holds no tools: it is not a JSON array of objects", path.display()),
                )
                .hint("write [{\"type\": \"function\", \"function\": {\"name\": …}}, …]"));
            }
        });
    }
    for argument in &args.template_arg {
        let (name, value) =
            argument.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
                Error::new(
                    Code::InvalidRequest,
                    format!("the template argument '{argument}' has no name or no ="),
                )
                .hint("write --template-arg NAME=VALUE, such as reasoning_effort=low")
            })?;
        if RESERVED.contains(&name) {
            return Err(Error::new(
                Code::InvalidRequest,
                format!("--template-arg cannot set '{name}', which is made of the prompt and other flags"),
            )
            .hint("use --system, --tools or the prompt"));
        }
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        arguments.values.insert(name.to_owned(), value);
    }
    Ok(arguments)
}

/// The JSON of a file that a user has named.
fn json(path: &Path, what: &str) -> Result<Value> {
    let (file, _) = open_regular(path)?;
    let mut text = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut text).map_err(|error| Error::io("read", path, error))?;
    let bad = |reason: String| {
        Error::new(Code::InvalidRequest, format!("{} is not {what}: {reason}", path.display()))
            .hint("give a file of JSON")
            .detail("path", path.display().to_string())
    };
    if text.len() as u64 > LARGEST {
        return Err(bad(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))
}
