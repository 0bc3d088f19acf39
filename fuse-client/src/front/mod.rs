//! Front ends: from FUSE opcodes to fops, one parser for all of them.
