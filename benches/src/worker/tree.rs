//! A source tree, the same on every machine.

use std::fs;
use std::io;
use std::path::Path;

/// A generator of numbers that are the same in every run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end.max(1)
    }
}

const WORDS: [&str; 24] = [
    "return", "struct", "inode", "static", "const", "char", "size", "offset", "buffer", "lock", "if", "else", "while",
    "errno", "brick", "volume", "uint64_t", "int", "data", "length", "{", "}", "(void)", ";",
];

/// Writes `files` text files of the sizes usual in sources (half below 3 KiB, a few above 100 KiB) into `directory`,
/// 12 to a directory, directories three deep, and a symbolic link to each 50th.
///
/// # Errors
/// The file system's.
pub fn make_tree(directory: &Path, files: u64) -> io::Result<()> {
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    for index in 0..files {
        let leaf = index / 12;
        let parent = directory.join(format!("part{:02}/module{:02}/unit{leaf:03}", leaf % 8, leaf / 8 % 6));
        fs::create_dir_all(&parent)?;
        let name = format!("source_{index:05}.{}", ["c", "h", "py", "txt"][(index % 4) as usize]);
        // Doubles now and then: a median of some 2 KiB, a mean of some 6 KiB.
        let mut size = 2048;
        while size < 512 * 1024 && numbers.below(100) < 55 {
            size *= 2;
        }
        let size = size / 2 + numbers.below(size / 2);
        fs::write(parent.join(&name), text(&mut numbers, size))?;
        if index % 50 == 0 {
            std::os::unix::fs::symlink(&name, parent.join(format!("link_{index:05}")))?;
        }
    }
    Ok(())
}

fn text(numbers: &mut Numbers, size: u64) -> String {
    let mut text = String::with_capacity(usize::try_from(size).unwrap_or(0) + 16);
    while (text.len() as u64) < size {
        let word = WORDS[numbers.below(WORDS.len() as u64) as usize];
        text.push_str(word);
        text.push(if numbers.below(9) == 0 { '\n' } else { ' ' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_twice_and_like_sources() {
        let base = std::env::temp_dir().join(format!("ladrillo-bench-tree-{}", std::process::id()));
        let mut seen = Vec::new();
        for run in ["a", "b"] {
            make_tree(&base.join(run), 300).unwrap();
            let mut sizes = Vec::new();
            let mut pending = vec![base.join(run)];
            while let Some(directory) = pending.pop() {
                for entry in fs::read_dir(directory).unwrap().flatten() {
                    let kind = entry.file_type().unwrap();
                    if kind.is_dir() {
                        pending.push(entry.path());
                    } else if kind.is_file() {
                        sizes.push((entry.file_name(), fs::read(entry.path()).unwrap()));
                    }
                }
            }
            sizes.sort();
            seen.push(sizes);
        }
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(seen[0].len(), 300);
        assert!(seen[0] == seen[1], "two trees differ");
        let total: usize = seen[0].iter().map(|(_, c)| c.len()).sum();
        let mean = total / 300;
        assert!((2_000..20_000).contains(&mean), "a mean of {mean} bytes");
    }
}
