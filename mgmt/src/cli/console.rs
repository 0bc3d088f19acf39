//! Standard output, standard error, and the operator's answers.

use std::fmt::Display;
use std::io::{self, BufRead, Write};

/// The three streams of a command. A reader of ours that went away is no error of the command's.
pub(super) struct Console<'a> {
    out: Box<dyn Write + 'a>,
    err: Box<dyn Write + 'a>,
    input: Box<dyn BufRead + 'a>,
}

/// What GlusterFS reads of an answer to a question, bytes.
const ANSWER_BYTES: usize = 3;

impl<'a> Console<'a> {
    /// This process's streams.
    pub(super) fn standard() -> Console<'a> {
        let input = Box::new(io::BufReader::new(io::stdin()));
        Console { out: Box::new(io::stdout()), err: Box::new(io::stderr()), input }
    }

    /// Other streams.
    pub(super) fn new(out: impl Write + 'a, err: impl Write + 'a, input: impl BufRead + 'a) -> Console<'a> {
        Console { out: Box::new(out), err: Box::new(err), input: Box::new(input) }
    }

    /// A line on standard output.
    pub(super) fn out(&mut self, line: impl Display) {
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }

    /// A line on standard error.
    pub(super) fn err(&mut self, line: impl Display) {
        let _ = writeln!(self.err, "{line}").and_then(|()| self.err.flush());
    }

    /// Text on standard output, no line end added.
    pub(super) fn write(&mut self, text: impl Display) {
        let _ = write!(self.out, "{text}").and_then(|()| self.out.flush());
    }

    /// The next line of the operator's, without its end; `None` at the end of input.
    pub(super) fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.input.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => {
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                Some(String::from_utf8_lossy(&line).into_owned())
            }
        }
    }

    /// Asks; anything but `y` and `yes` is no, and what is no answer at all is said to be none.
    pub(super) fn confirm(&mut self, question: &str) -> bool {
        self.write(format_args!("{question} (y/n) "));
        let Some(answer) = self.line() else {
            self.out("gluster cli read error");
            self.out("Invalid input, please enter y/n");
            return false;
        };
        // GlusterFS looks at the first three characters: "yesterday" is a yes there too.
        let seen: String = answer.chars().take(ANSWER_BYTES).collect::<String>().to_ascii_lowercase();
        match seen.as_str() {
            "y" | "yes" => true,
            "n" | "no" => false,
            _ => {
                self.out("Invalid input, please enter y/n");
                false
            }
        }
    }
}
