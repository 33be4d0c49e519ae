//! What a request asks, in tokens.

use super::Generator;
use crate::engine::request::{Bias, BiasedToken, GenerateRequest, Prompt, TemplateArguments};
use crate::engine::text::reasoning::Tags;
use crate::error::{Code, Error, Result};

impl Generator {
    /// The prompt's text as the model sees it, and its tokens.
    pub(super) fn prompt(&self, request: &GenerateRequest) -> Result<(String, Vec<u32>)> {
        let (text, tokens) = match (&request.prompt, &self.template) {
            (Prompt::Raw(text), _) => (text.clone(), self.tokenizer.encode(text, true)?),
            (Prompt::Chat(messages), Some(template)) => {
                // The template writes the special tokens itself.
                let text = template.render_with(messages, true, &request.template)?;
                let tokens = self.tokenizer.encode(&text, false)?;
                (text, tokens)
            }
            (Prompt::Chat(_), None) if request.template != TemplateArguments::default() => {
                return Err(Error::new(
                    Code::CapabilityMissing,
                    "the model has no chat template that could take tools, --think or --template-arg",
                )
                .hint("leave them out, or take a model with a chat template"));
            }
            (Prompt::Chat(messages), None) => {
                let text =
                    messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n\n");
                let tokens = self.tokenizer.encode(&text, true)?;
                (text, tokens)
            }
        };
        if tokens.is_empty() {
            return Err(Error::new(Code::InvalidRequest, "the prompt is empty")
                .hint("give a text as an argument or pipe it in"));
        }
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= self.vocabulary) {
            return Err(Error::new(
                Code::IntegrityFailed,
                format!(
                    "the tokenizer gives token {id} but the model's vocabulary has {} tokens",
                    self.vocabulary
                ),
            )
            .hint("tokenizer and weights do not belong together: fetch the model again"));
        }
        Ok((text, tokens))
    }

    /// How the answer's reasoning is marked, and whether the prompt begins it. A raw prompt's answer is
    /// shown as it comes.
    pub(super) fn reasoning(&self, request: &GenerateRequest, prompt: &str) -> Option<(Tags, bool)> {
        let template = self.template.as_ref().filter(|_| matches!(request.prompt, Prompt::Chat(_)))?;
        let tags = Tags::of(template.source())?;
        Some((tags, tags.begun_by(prompt)))
    }

    /// How many tokens may be generated.
    pub(super) fn room_for(&self, prompt_tokens: usize, max_tokens: Option<usize>) -> Result<usize> {
        if prompt_tokens >= self.context {
            return Err(Error::new(
                Code::InvalidRequest,
                format!(
                    "the prompt has {prompt_tokens} tokens, which leaves no room for an answer in a context of {}",
                    self.context
                ),
            )
            .hint("shorten the prompt, start a new conversation, or raise --context as far as the model allows")
            .detail("prompt_tokens", prompt_tokens)
            .detail("context", self.context));
        }
        let room = self.context - prompt_tokens;
        Ok(max_tokens.map_or(room, |asked| asked.min(room)))
    }

    /// The ids of tokens that are to be more or less likely.
    pub(super) fn bias(&self, bias: &[Bias]) -> Result<Vec<(u32, f32)>> {
        let value = |bias: &Bias| bias.value.unwrap_or(f32::NEG_INFINITY);
        bias.iter().map(|bias| Ok((self.biased(&bias.token)?, value(bias)))).collect()
    }

    fn biased(&self, token: &BiasedToken) -> Result<u32> {
        let vocabulary = self.vocabulary;
        match token {
            BiasedToken::Id(id) if (*id as usize) < vocabulary => Ok(*id),
            BiasedToken::Id(id) => Err(Error::new(
                Code::InvalidRequest,
                format!("--logit-bias names the token {id}, but the model has {vocabulary} tokens"),
            )
            .hint(format!("ids go from 0 to {}", vocabulary.saturating_sub(1)))),
            BiasedToken::Text(text) => match self.tokenizer.encode(text, false)?.as_slice() {
                [id] => Ok(*id),
                ids => Err(Error::new(
                    Code::InvalidRequest,
                    format!(
                        "--logit-bias names the text {text:?}, which is {} tokens here: {ids:?}",
                        ids.len()
                    ),
                )
                .hint("give a text that is one token, mind the space before a word, or give ids")
                .detail("tokens", ids)),
            },
        }
    }
}
