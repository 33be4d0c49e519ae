//! Files as the store needs them: published atomically, hashed while they move, locked between
//! processes.

mod attributes;
mod checksum;
mod copy;
mod dir;
mod file;
mod handle;
mod hash;
mod limit;
mod link;
mod lock;
mod pages;
mod parallel;
mod part;
mod space;
mod temp;
mod writers;

pub use attributes::{attributes, set_attributes};
pub use checksum::{Checksums, Wanted, checksums};
pub use copy::{Copied, Copy, copy_hashed, copy_open};
pub use dir::{create_private_dir, sync_dir};
pub use file::{FileStamp, open_regular, plain_path};
pub use handle::{Dir, Entry, EntryKind, Place, entry_at, entry_of_file, own_user, set_modified};
pub use hash::{
    ContentHasher, ContentHashes, ENDS, Hashed, Progress, hash_contents, hash_ends, hash_file, hash_open,
    hash_sparse,
};
pub use limit::file_size_limit_is_an_error;
pub use link::{place_symlink, relative_target};
pub use lock::FileLock;
pub use pages::forget_pages;
pub use parallel::{default_threads, try_map, try_map_on};
pub use part::{PIECE, Part, Settled, Writer};
pub use space::{Space, space};
pub use temp::{TempFile, is_abandoned, is_temporary, unique_path, write_atomic};
pub use writers::Unwritten;
