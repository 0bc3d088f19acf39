//! The client: glusterfs.
