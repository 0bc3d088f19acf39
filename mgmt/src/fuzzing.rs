//! What this crate reads from outside and is not public, for the fuzz targets: each checks what must hold of any bytes.

pub use crate::cli::fuzzing::command_line;
pub use crate::state::workdir::fuzzing::working_directory;
