//! `{% generation %}` blocks, by which templates mark the model's own words for training. They change
//! nothing in the rendered text, but are a block with a scope, so they become `{% with %}`.

/// The template with its `generation` tags renamed; comments, strings and raw blocks stay.
pub(super) fn rename_tags(source: &str) -> String {
    let mut renamed = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        let (before, tag) = rest.split_at(at);
        renamed += before;
        let length = match tag.as_bytes().get(1) {
            Some(b'#') => tag.find("#}").map_or(tag.len(), |end| end + 2),
            Some(b'{') => expression(tag, "}}"),
            Some(b'%') => {
                let length = expression(tag, "%}");
                let inside = tag[2..].trim_start_matches(['-', '+']).trim_start();
                let word =
                    inside.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                let replacement = match word {
                    "generation" => "with",
                    "endgeneration" => "endwith",
                    "raw" => {
                        let end = raw_end(&tag[length..]).map_or(tag.len(), |end| length + end);
                        renamed += &tag[..end];
                        rest = &tag[end..];
                        continue;
                    }
                    _ => word,
                };
                let start = tag.len() - inside.len();
                renamed += &tag[..start];
                renamed += replacement;
                renamed += &tag[(start + word.len()).min(length)..length];
                rest = &tag[length..];
                continue;
            }
            _ => 1,
        };
        renamed += &tag[..length];
        rest = &tag[length..];
    }
    renamed + rest
}

/// Bytes of the tag up to and with its end mark, which inside of a string is none.
fn expression(tag: &str, end: &str) -> usize {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in tag.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(mark) if c == mark => quote = None,
            None if tag[at..].starts_with(end) => return at + end.len(),
            None if c == '"' || c == '\'' => quote = Some(c),
            _ => {}
        }
    }
    tag.len()
}

/// Where the tag begins that ends a raw block.
fn raw_end(text: &str) -> Option<usize> {
    text.match_indices("{%")
        .map(|(at, _)| at)
        .find(|&at| text[at + 2..].trim_start_matches(['-', '+']).trim_start().starts_with("endraw"))
}

#[cfg(test)]
mod tests {
    use super::rename_tags;

    #[test]
    fn tags_are_renamed_with_their_marks() {
        assert_eq!(
            rename_tags("a{%- generation -%}b{% endgeneration +%}{%generation%}"),
            "a{%- with -%}b{% endwith +%}{%with%}"
        );
    }

    #[test]
    fn everything_else_stays() {
        for text in [
            "{% if add_generation_prompt %}x{% endif %}",
            "{# {% generation %} #}",
            "{{ '{% generation %}' }}",
            "{{ \"\\\"{% generation %}\" ~ '}}' }}{% set x = '%}{% generation %}' %}",
            "{% raw %}{% generation %}{% endraw %}",
            "{",
            "{%",
            "{% generationx %}",
            "{% raw %}{% generation",
            "{{ 'open",
            "é{%é%}",
        ] {
            assert_eq!(rename_tags(text), text);
        }
    }
}
