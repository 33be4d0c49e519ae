//! Manifests: which layers make up a model.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Deserializer;

use crate::ids::{Digest, ModelName, SnapshotPath};
use crate::sources::record;

/// A model of a thousand tensors, each a layer of its own, has a manifest of about 300 kB.
const LONGEST: u64 = 8 << 20;
const MOST_LAYERS: usize = 50_000;

/// Says which kind of layer it is, before the kind's name.
const MEDIA_TYPE: &str = "application/vnd.ollama.image.";

/// A model's layers.
#[derive(Debug)]
pub(super) struct Manifest(Vec<Layer>);

/// One file of a model.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layer {
    /// The kind as a file's name.
    pub path: SnapshotPath,
    pub digest: Digest,
    pub bytes: Option<u64>,
    /// Its file's name in `blobs/`.
    pub blob: String,
}

#[derive(Deserialize)]
struct RawManifest {
    #[serde(default)]
    config: RawLayer,
    #[serde(default)]
    layers: Option<Vec<RawLayer>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawLayer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
    size: i64,
    /// Where a tensor or a file of a safetensors model belongs.
    name: String,
}

impl Manifest {
    /// Reads a manifest, or says why it is none.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = record::read(path, LONGEST).map_err(|error| format!("cannot be read: {error}"))?;
        Self::parse(&text)
    }

    pub fn parse(text: &[u8]) -> Result<Self, String> {
        // Ollama reads the first value and not on.
        let mut values = Deserializer::from_slice(text).into_iter::<RawManifest>();
        let raw = match values.next() {
            Some(Ok(raw)) => raw,
            Some(Err(error)) => return Err(format!("no manifest: {error}")),
            None => return Err("no manifest: it is empty".to_owned()),
        };
        let layers = raw.layers.unwrap_or_default();
        if layers.len() > MOST_LAYERS {
            return Err(format!("it has {} layers, more than {MOST_LAYERS}", layers.len()));
        }
        if layers.is_empty() {
            return Err("a manifest without layers".to_owned());
        }
        let mut names: HashMap<String, u32> = HashMap::new();
        let config = (!raw.config.digest.is_empty()).then_some(("config".to_owned(), raw.config));
        let named = layers.into_iter().map(|layer| (file_name(&layer), layer));
        let read = named.chain(config).map(|(name, raw)| {
            let count = names.entry(name.clone()).and_modify(|count| *count += 1).or_insert(1);
            raw.layer(&numbered(&name, *count))
        });
        read.collect::<Result<_, _>>().map(Self)
    }

    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.0.iter()
    }

    pub fn into_layers(self) -> impl Iterator<Item = Layer> {
        self.0.into_iter()
    }
}

impl RawLayer {
    fn layer(self, name: &str) -> Result<Layer, String> {
        // Both signs were in use for digests; Ollama makes one of them before it looks for the file.
        let hex = self.digest.strip_prefix("sha256:").or_else(|| self.digest.strip_prefix("sha256-"));
        let digest = hex.and_then(|hex| Some((hex, hex.parse::<Digest>().ok()?)));
        let Some((hex, digest)) = digest else {
            return Err("a layer of it is not named by a SHA-256".to_owned());
        };
        let path = name.parse().map_err(|_| "a layer of it has no name that a file can have".to_owned())?;
        // A negative size is none.
        Ok(Layer { path, digest, bytes: u64::try_from(self.size).ok(), blob: format!("sha256-{hex}") })
    }
}

/// The name that a layer would have as a file.
fn file_name(layer: &RawLayer) -> String {
    let kind = layer.media_type.strip_prefix(MEDIA_TYPE).unwrap_or(&layer.media_type);
    // Parameters may follow the type.
    let kind = kind.split(';').next().unwrap_or_default().trim();
    match (kind, layer.name.as_str()) {
        ("model" | "projector" | "adapter", _) => format!("{kind}.gguf"),
        ("params" | "messages", _) => format!("{kind}.json"),
        ("tensor", name) if !name.is_empty() => format!("tensor/{name}"),
        ("json", name) if !name.is_empty() => name.to_owned(),
        _ => {
            let plain =
                |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '-' };
            let name: String = kind.chars().take(80).map(plain).collect();
            let name = name.trim_start_matches('.');
            if name.is_empty() { "layer".to_owned() } else { name.to_owned() }
        }
    }
}

/// The second of a kind is `license-2`.
fn numbered(name: &str, count: u32) -> String {
    match (count, name.rsplit_once('.')) {
        (1, _) => name.to_owned(),
        (_, Some((stem, extension))) if !stem.is_empty() => format!("{stem}-{count}.{extension}"),
        _ => format!("{name}-{count}"),
    }
}

/// A model's name by the four parts of its manifest's place; `None` if they are not such.
pub(super) fn model_name(host: &str, namespace: &str, name: &str, tag: &str) -> Option<ModelName> {
    // A mark in a name would move its end.
    if [namespace, name, tag].iter().any(|part| part.contains([':', '/'])) {
        return None;
    }
    ModelName::parse_ollama(&format!("{host}/{namespace}/{name}:{tag}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "60e05f2100071479f596b964f89f510f057ce397ea22f2833a0cfe029bfc2463";

    fn manifest(layers: &[(&str, &str)]) -> String {
        let layers: Vec<_> = layers
            .iter()
            .map(|(kind, digest)| {
                serde_json::json!({"mediaType": format!("{MEDIA_TYPE}{kind}"), "digest": digest, "size": 7})
            })
            .collect();
        serde_json::json!({
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json",
                       "digest": format!("sha256:{DIGEST}"), "size": 1},
            "layers": layers,
        })
        .to_string()
    }

    fn paths(text: &str) -> Vec<String> {
        let manifest = Manifest::parse(text.as_bytes()).expect("a manifest");
        manifest.into_layers().map(|layer| layer.path.to_string()).collect()
    }

    #[test]
    fn layers_are_named_by_their_kind() {
        let (colon, dash) = (format!("sha256:{DIGEST}"), format!("sha256-{DIGEST}"));
        let kinds = ["model", "template", "license", "license", "params", "projector", "projector"];
        let layers: Vec<_> = kinds.iter().map(|kind| (*kind, colon.as_str())).collect();
        let names = ["model.gguf", "template", "license", "license-2", "params.json", "projector.gguf"];
        assert_eq!(paths(&manifest(&layers))[..6], names);
        assert_eq!(paths(&manifest(&layers))[6..], ["projector-2.gguf", "config"]);
        let layer = Manifest::parse(manifest(&[("model", &dash)]).as_bytes()).expect("a manifest");
        let layer = layer.into_layers().next().expect("a layer");
        assert_eq!((layer.blob, layer.bytes), (dash, Some(7)));
        // What follows the first value is not read.
        assert_eq!(paths(&(manifest(&[("model", &colon)]) + "rubbish")).len(), 2);
    }

    #[test]
    fn hostile_manifests_are_refused() {
        for digest in ["", "sha256:", "sha256:../../etc/passwd", "/etc/passwd", "sha256:60e0\u{0}", "md5:00"]
        {
            assert!(Manifest::parse(manifest(&[("model", digest)]).as_bytes()).is_err(), "{digest}");
        }
        let colon = format!("sha256:{DIGEST}");
        for name in ["../x", "/x", "a\u{0}b", "a//b"] {
            let text = serde_json::json!({"layers": [{"mediaType": "application/vnd.ollama.image.json",
                "digest": colon, "name": name}]});
            assert!(Manifest::parse(text.to_string().as_bytes()).is_err(), "{name}");
        }
        assert_eq!(paths(&manifest(&[("../../x", &colon)]))[0], "-..-x");
        for text in ["", "[]", "{}", "{\"layers\": null}", "{\"layers\": [7]}", "{\"layers\"", "\u{0}"] {
            assert!(Manifest::parse(text.as_bytes()).is_err(), "{text}");
        }
        let size = "{\"layers\": [{\"digest\": \"sha256:60\", \"size\": 1e99}]}";
        assert!(Manifest::parse(size.as_bytes()).is_err());
        assert!(Manifest::parse("[".repeat(1 << 20).as_bytes()).is_err());
    }

    #[test]
    fn places_give_names() {
        let name = |host, namespace, name, tag| {
            model_name(host, namespace, name, tag).map(|name| name.to_string()).unwrap_or_default()
        };
        assert_eq!(name("registry.ollama.ai", "library", "smollm2", "135m"), "ollama:smollm2:135m");
        assert_eq!(name("registry.ollama.ai", "me", "mine", "v1"), "ollama:me/mine:v1");
        assert_eq!(name("hf.co", "bartowski", "X-GGUF", "Q4_K_M"), "ollama:hf.co/bartowski/X-GGUF:Q4_K_M");
        assert_eq!(name("localhost:5000", "a", "b", "c"), "ollama:localhost:5000/a/b:c");
        for bad in
            [["..", "a", "b", "c"], ["h", "..", "b", "c"], ["h", "a", "b:x", "c"], ["h", "a", "b", "c d"]]
        {
            assert_eq!(name(bad[0], bad[1], bad[2], bad[3]), "", "{bad:?}");
        }
    }
}
