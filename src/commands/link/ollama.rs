//! Ollama's models (see [`crate::sources::Ollama`] for their layout).
//!
//! A manifest is made as Ollama's `create` makes it for one GGUF file: `server/create.go`,
//! `manifest/manifest.go` and `types/model/config.go` of its source.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::Digest as _;

use super::Model;
use super::plan::{Plan, What};
use crate::engine::format::layout::Layout;
use crate::engine::format::tensors;
use crate::error::{Code, Error, Result};
use crate::ids::{Digest, Host, ModelName};
use crate::output::units;

const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Chat formats by a mark in the model's own template: how Ollama's language writes them, and the texts
/// that end a turn. Releases of Ollama that render the model's own template need neither.
const FORMATS: [(&str, &str, &[&str]); 3] = [
    (
        "<|im_start|>",
        "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
        &["<|im_start|>", "<|im_end|>"],
    ),
    (
        "<|start_header_id|>",
        "{{ range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>{{ end }}\
         <|start_header_id|>assistant<|end_header_id|>\n\n",
        &["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    ),
    (
        "<start_of_turn>",
        "{{ range .Messages }}<start_of_turn>{{ if eq .Role \"assistant\" }}model{{ else }}user{{ end }}\n\
         {{ .Content }}<end_of_turn>\n{{ end }}<start_of_turn>model\n",
        &["<start_of_turn>", "<end_of_turn>"],
    ),
];

/// A manifest with the model, its configuration, and where its chat format is known, template and
/// parameters.
pub(super) fn plan(model: &Model, models: &Path) -> Result<Plan> {
    if !models.is_dir() {
        let message = format!("Ollama has no folder of models at {}", models.display());
        return Err(Error::new(Code::FileNotFound, message)
            .detail("path", models.display().to_string())
            .hint("start Ollama once, or set OLLAMA_MODELS"));
    }
    let Some(gguf) = model.gguf()? else {
        let message = format!("{} is no GGUF file, and Ollama takes nothing else", model.snapshot.name);
        return Err(Error::new(Code::ModelUnsupported, message)
            .hint("pull a GGUF version of the model, such as org/name-GGUF:Q4_K_M"));
    };
    let path = model.path_of(gguf);
    let facts = &model.snapshot.facts;
    let (_, metadata) = tensors::open(&Layout::find(&path)?)?;
    let template = metadata.as_ref().and_then(|metadata| metadata.text("tokenizer.chat_template"));
    let family = facts.architecture.clone().unwrap_or_default();
    let place = place(model)?;
    let mut plan = Plan::new("ollama", models, shown(&place))?;
    plan.add(blob(&gguf.digest), What::Content { digest: gguf.digest, bytes: gguf.bytes });
    let mut layers = vec![layer("application/vnd.ollama.image.model", &gguf.digest, gguf.bytes)];
    let format = template.and_then(|template| FORMATS.iter().find(|(mark, ..)| template.contains(mark)));
    if let Some((_, text, stop)) = format {
        let kind = "application/vnd.ollama.image.template";
        layers.push(record(&mut plan, kind, text.as_bytes().to_vec()));
        let params = line(&json!({ "stop": stop }));
        layers.push(record(&mut plan, "application/vnd.ollama.image.params", params));
    } else if template.is_some() {
        plan.notes.push(
            "the chat format has no equal in Ollama's template language: only releases of Ollama that \
             render the model's own template chat well with it"
                .to_owned(),
        );
    }
    // Keys in the order of Ollama's own files.
    let config = json!({
        "model_format": "gguf",
        "model_family": family,
        "model_families": [family],
        "model_type": facts.parameters.map(units::count).unwrap_or_default(),
        "file_type": facts.quantization.clone().unwrap_or_default(),
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|layer| &layer["digest"]).collect::<Vec<_>>()},
    });
    let config = record(&mut plan, CONFIG, line(&config));
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    // The last: only now is the model there.
    plan.add(Path::new("manifests").join(place.iter().collect::<PathBuf>()), What::Record(line(&manifest)));
    Ok(plan)
}

/// Host, namespace, name and tag: those by which Ollama would pull the same file from the hub.
fn place(model: &Model) -> Result<[String; 4]> {
    let name = &model.snapshot.name;
    if let Some(own) = name.ollama_parts() {
        return Ok(own.map(str::to_owned));
    }
    let host = if name.host() == Host::HuggingFace { "hf.co" } else { "registry.ollama.ai" };
    let tag = model.snapshot.facts.quantization.as_deref().unwrap_or("latest");
    let plain = |text: &str| text.replace(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)), "-");
    // The rules for parts in `types/model/name.go`.
    let namespace = plain(name.org()).replace('.', "-");
    let parts = [host.to_owned(), namespace, plain(name.name()), plain(tag)];
    let full = format!("{}/{}/{}:{}", parts[0], parts[1], parts[2], parts[3]);
    if parts.iter().skip(1).any(|part| part.len() > 80) || ModelName::parse_ollama(&full).is_err() {
        return Err(Error::new(Code::InvalidRequest, format!("Ollama allows no model called {full}"))
            .hint("add the file under another name with: mlx-cache add PATH --copy --name org/name"));
    }
    Ok(parts)
}

/// The name to be given to `ollama run`.
fn shown(place: &[String; 4]) -> String {
    let [host, namespace, name, tag] = place;
    match (host.as_str(), namespace.as_str()) {
        ("registry.ollama.ai", "library") => format!("{name}:{tag}"),
        ("registry.ollama.ai", _) => format!("{namespace}/{name}:{tag}"),
        _ => format!("{host}/{namespace}/{name}:{tag}"),
    }
}

fn blob(digest: &Digest) -> PathBuf {
    Path::new("blobs").join(format!("sha256-{digest}"))
}

fn layer(kind: &str, digest: &Digest, bytes: u64) -> Value {
    json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes})
}

/// A layer with this content.
fn record(plan: &mut Plan, kind: &str, content: Vec<u8>) -> Value {
    let digest = Digest::from_bytes(sha2::Sha256::digest(&content).into());
    let layer = layer(kind, &digest, content.len() as u64);
    plan.add(blob(&digest), What::Record(content));
    layer
}

/// JSON and a newline, as Ollama writes it.
fn line(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}
