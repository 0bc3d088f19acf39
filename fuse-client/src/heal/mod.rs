//! The heal service: brings copies up to date from the bricks' indices.
