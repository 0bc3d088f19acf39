//! The executor: a thread per CPU it was given, FUSE and brick sockets in one io_uring.
