//! From a volfile to a running graph of translators.
