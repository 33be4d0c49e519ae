//! Where vectors go while they are made: standard output, a file, or memory.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::input::Record;
use super::part::{PartFile, Reached};
use super::stream::Read as InputRead;
use super::vectors::VectorWriter;
use crate::error::{Error, Result};
use crate::fs::{TempFile, create_private_dir};
use crate::output::Output;

/// How often what is written is made durable: more often would cost time, less often work that is done again.
const SAVED_EVERY: Duration = Duration::from_secs(5);
/// Bytes that are copied at a time.
const COPIED: usize = 1 << 20;

/// Takes vectors in their order.
pub struct Sink<'a> {
    place: Place<'a>,
    writer: VectorWriter,
    reached: Reached,
    checksum: crc32fast::Hasher,
    saved: Instant,
    /// How often something was added.
    added: u64,
}

enum Place<'a> {
    Stdout(&'a Output),
    /// For standard output, in a format whose beginning is known last.
    Spool(TempFile, &'a Output),
    File(PartFile),
}

impl<'a> Sink<'a> {
    /// To standard output; formats whose beginning is known last wait in `spool`, a folder of this user's.
    pub fn stdout(writer: VectorWriter, output: &'a Output, spool: &Path) -> Result<Self> {
        let place = if writer.rewrites_beginning() {
            create_private_dir(spool)?;
            Place::Spool(TempFile::create_in(spool)?, output)
        } else {
            Place::Stdout(output)
        };
        Self::begin(place, writer)
    }

    /// To a file, or on with one.
    pub fn file(writer: VectorWriter, path: &Path, made_with: String, resume: bool) -> Result<Self> {
        let (file, reached) = PartFile::open(path, made_with, resume)?;
        match reached {
            None => Self::begin(Place::File(file), writer),
            Some(reached) => {
                let checksum = crc32fast::Hasher::new_with_initial_len(reached.checksum, reached.body_bytes);
                Ok(Self {
                    place: Place::File(file),
                    writer,
                    reached,
                    checksum,
                    saved: Instant::now(),
                    added: 0,
                })
            }
        }
    }

    fn begin(place: Place<'a>, writer: VectorWriter) -> Result<Self> {
        let checksum = crc32fast::Hasher::new();
        let beginning = writer.beginning(0, &checksum);
        let (reached, saved) = (Reached::default(), Instant::now());
        let mut sink = Self { place, writer, reached, checksum, saved, added: 0 };
        sink.put(&beginning)?;
        Ok(sink)
    }

    /// How far the result is.
    pub fn reached(&self) -> &Reached {
        &self.reached
    }

    /// Adds the vectors of some texts, after which the input is read so far.
    pub fn add(
        &mut self,
        records: &[Record],
        vectors: &[f32],
        width: usize,
        tokens: u64,
        truncated: u64,
        read: &InputRead,
    ) -> Result<()> {
        let mut bytes = Vec::with_capacity(vectors.len() * 4);
        for (record, vector) in records.iter().zip(vectors.chunks_exact(width)) {
            self.writer.row(record, vector, self.reached.rows == 0, &mut bytes)?;
            self.reached.rows += 1;
        }
        self.checksum.update(&bytes);
        self.reached.body_bytes += bytes.len() as u64;
        self.put(&bytes)?;
        self.reached.checksum = self.checksum.clone().finalize();
        self.reached.records = read.records;
        self.reached.skipped = read.skipped;
        self.reached.texts.clone_from(&read.digest);
        self.reached.tokens += tokens;
        self.reached.truncated += truncated;
        self.added += 1;
        // Whatever is not done at once is worth being gone on with, however soon it ends.
        if self.added == 2 || self.saved.elapsed() >= SAVED_EVERY {
            self.save()?;
        }
        Ok(())
    }

    /// Makes a file's part durable, so that another run can go on with it.
    pub fn save(&mut self) -> Result<()> {
        if let Place::File(file) = &mut self.place
            && self.reached.rows > 0
        {
            file.save(&self.reached)?;
        }
        self.saved = Instant::now();
        Ok(())
    }

    /// Ends the result; the size of a file in bytes.
    pub fn finish(mut self) -> Result<u64> {
        let end = self.writer.end(self.reached.rows, &self.checksum);
        self.put(&end)?;
        let beginning = self.writer.beginning(self.reached.rows, &self.checksum);
        match self.place {
            Place::Stdout(_) => Ok(self.reached.bytes),
            Place::File(file) => file.publish(&beginning),
            Place::Spool(mut temp, output) => {
                let path = temp.path().to_owned();
                let fail = |error| Error::io("read", &path, error);
                let file = temp.file();
                file.seek(SeekFrom::Start(beginning.len() as u64)).map_err(fail)?;
                output.bytes(&beginning)?;
                let mut buffer = vec![0; COPIED];
                loop {
                    let read = file.read(&mut buffer).map_err(fail)?;
                    if read == 0 {
                        return Ok(self.reached.bytes);
                    }
                    output.bytes(&buffer[..read])?;
                }
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.place {
            Place::Stdout(output) => output.bytes(bytes)?,
            Place::Spool(temp, _) => {
                let path = temp.path().to_owned();
                temp.file().write_all(bytes).map_err(|error| Error::io("write", &path, error))?;
            }
            Place::File(file) => file.write(bytes)?,
        }
        self.reached.bytes += bytes.len() as u64;
        Ok(())
    }
}
