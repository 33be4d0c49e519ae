//! SentencePiece's table of what characters become before anything is cut (`precompiled_charsmap`): the size of
//! a trie in bytes, the trie, and the texts that its leaves point to, each ended by a zero byte.
//!
//! The trie is a double array as darts-clone writes it: a unit of 32 bits is a node with the byte that leads to it,
//! the distance of its children, and whether a leaf is among them.

/// A table that is looked up.
#[derive(Debug)]
pub(super) struct Characters {
    units: Vec<u32>,
    texts: Vec<u8>,
}

impl Characters {
    /// `None` for a table that is cut off.
    pub(super) fn new(table: &[u8]) -> Option<Self> {
        let (size, rest) = table.split_first_chunk()?;
        let (trie, texts) = rest.split_at_checked(u32::from_le_bytes(*size) as usize)?;
        let (units, []) = trie.as_chunks() else { return None };
        Some(Self {
            units: units.iter().map(|unit| u32::from_le_bytes(*unit)).collect(),
            texts: texts.to_vec(),
        })
    }

    /// The text with the longest of what is in the table, again and again, replaced.
    pub(super) fn replace(&self, text: &str) -> String {
        let mut replaced = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let length = if let Some((length, by)) = self.longest(rest) {
                replaced.push_str(by);
                length
            } else {
                replaced.push(next);
                next.len_utf8()
            };
            rest = rest.get(length..).unwrap_or_default();
        }
        replaced
    }

    /// The bytes of the longest beginning that is in the table, and what it becomes.
    fn longest<'a>(&'a self, text: &str) -> Option<(usize, &'a str)> {
        let mut found = None;
        let mut at = distance(*self.units.first()?);
        for (index, byte) in text.bytes().enumerate() {
            at ^= usize::from(byte);
            let Some(&unit) = self.units.get(at) else { break };
            if byte == 0 || label(unit) != u32::from(byte) {
                break;
            }
            at ^= distance(unit);
            if has_leaf(unit) && text.is_char_boundary(index + 1) {
                found =
                    self.units.get(at).and_then(|leaf| self.text(*leaf)).map(|by| (index + 1, by)).or(found);
            }
        }
        found
    }

    fn text(&self, leaf: u32) -> Option<&str> {
        let text = self.texts.get((leaf & 0x7fff_ffff) as usize..)?;
        std::str::from_utf8(text.split(|byte| *byte == 0).next()?).ok()
    }
}

fn distance(unit: u32) -> usize {
    ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize
}

/// The byte of a node; of a leaf nothing that a byte could be.
fn label(unit: u32) -> u32 {
    unit & (1 << 31 | 0xff)
}

fn has_leaf(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_table_replaces_something_or_nothing(
            units in proptest::collection::vec(proptest::prelude::any::<u32>(), 0..300),
            texts in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
            text in ".{0,12}",
        ) {
            let mut table = (units.len() as u32 * 4).to_le_bytes().to_vec();
            table.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
            table.extend(&texts);
            let _ = Characters::new(&table).unwrap().replace(&text);
            proptest::prop_assert!(Characters::new(&table[..table.len().min(3)]).is_none());
        }
    }

    #[test]
    fn a_table_of_nothing_changes_nothing() {
        let table = Characters::new(&[0; 4]).unwrap();
        assert_eq!(table.replace("aé 가"), "aé 가");
        assert!(
            Characters::new(&[1, 0, 0, 0]).is_none() && Characters::new(&[3, 0, 0, 0, 1, 2, 3]).is_none()
        );
    }
}
