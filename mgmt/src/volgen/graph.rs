//! A graph on its way into a volfile.

use std::fmt::Write;

use crate::option::OPTIONS;

/// A translator of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its type: `protocol/client`.
    pub kind: String,
    /// Options in the order they are written: GlusterFS writes the one set last first.
    pub options: Vec<(String, String)>,
    /// Names of its subvolumes.
    pub subvolumes: Vec<String>,
}

/// Translators, subvolumes before those that use them; the last is the top.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// The translators.
    pub nodes: Vec<Node>,
}

impl Node {
    /// Sets an option: one already there keeps its place, a new one comes first.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Node {
        match self.options.iter_mut().find(|(known, _)| known == name) {
            Some(slot) => slot.1 = value.to_owned(),
            None => self.options.insert(0, (name.to_owned(), value.to_owned())),
        }
        self
    }
}

impl Graph {
    /// Adds a translator over `subvolumes`.
    pub fn add(&mut self, kind: &str, name: String, subvolumes: Vec<String>) -> &mut Node {
        let at = self.nodes.len();
        self.nodes.push(Node { name, kind: kind.to_owned(), options: Vec::new(), subvolumes });
        // Just pushed, so it is there.
        &mut self.nodes[at]
    }

    /// Adds `VOLUME-BASENAME` over the top.
    pub fn stack(&mut self, kind: &str, volume: &str) -> &mut Node {
        let name = format!("{volume}-{}", kind.rsplit('/').next().unwrap_or(kind));
        self.stack_as(kind, name)
    }

    /// Adds `name` over the top.
    pub fn stack_as(&mut self, kind: &str, name: String) -> &mut Node {
        let below = self.top().map(|top| vec![top.to_owned()]).unwrap_or_default();
        self.add(kind, name, below)
    }

    /// The top's name.
    pub fn top(&self) -> Option<&str> {
        self.nodes.last().map(|node| node.name.as_str())
    }

    /// Gives each translator the options that are copied as they are: the set value, or what is written without one, in the
    /// table's order. `renamed` lists options with a mark (`!`) that this graph copies too.
    pub fn apply_options<'a>(&mut self, value: impl Fn(&str) -> Option<&'a str>, marked: &[&str]) {
        for option in OPTIONS {
            if option.option.starts_with('!') && !marked.contains(&option.key) {
                continue;
            }
            let Some(value) = value(option.key).or(option.written) else { continue };
            for node in self.nodes.iter_mut().filter(|node| node.kind == option.translator) {
                node.set(option.name(), value);
            }
        }
    }

    /// The volfile.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if index > 0 {
                text.push('\n');
            }
            // Writing into a String cannot fail.
            let _ = writeln!(text, "volume {}\n    type {}", node.name, node.kind);
            for (name, value) in &node.options {
                let _ = writeln!(text, "    option {name} {value}");
            }
            if !node.subvolumes.is_empty() {
                let _ = writeln!(text, "    subvolumes {}", node.subvolumes.join(" "));
            }
            text.push_str("end-volume\n");
        }
        text
    }
}
