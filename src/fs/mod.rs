//! Files as the store needs them: published atomically, hashed while they move, locked between
//! processes.

mod checksum;
mod copy;
mod dir;
mod file;
mod hash;
mod limit;
mod link;
mod lock;
mod pages;
mod space;
mod temp;

pub use checksum::{Checksums, Wanted, checksums};
pub use copy::{Copied, Copy, copy_hashed};
pub use dir::{create_private_dir, sync_dir};
pub use file::{FileStamp, open_regular, plain_path};
pub use hash::{Hashed, Progress, hash_file};
pub use limit::file_size_limit_is_an_error;
pub use link::{place_symlink, relative_target};
pub use lock::FileLock;
pub use pages::forget_pages;
pub use space::{Space, space};
pub use temp::{TempFile, is_abandoned, is_temporary, unique_path, write_atomic};
