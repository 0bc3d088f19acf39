//! `protocol/client`: one brick, over a transport.
