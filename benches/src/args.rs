//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use regex::Regex;

use crate::cluster::VolumeType;
use crate::phase::Group;
use crate::worker::Orders;
use crate::workspace::Sizes;

/// Measures file systems side by side: throughput, latency, and processor time per operation.
///
/// Subjects are any directories (--subject), clusters of GlusterFS programs that it brings up and takes down by itself
/// (--cluster), and the local disk (--local). Each phase runs on all subjects before the next one begins; results are
/// medians over the runs. --list explains the phases.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "ladrillo-bench",
    version,
    max_term_width = 120,
    args_conflicts_with_subcommands = true,
    args_override_self = true
)]
pub struct Args {
    /// Something else than measuring
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Measuring.
    #[command(flatten)]
    pub measure: Measure,
}

/// Something else than measuring.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Makes results.md and the charts again from a results.json, beside it
    Report {
        /// The results.json
        file: PathBuf,
    },
    /// The load generator for small files, as the harness itself starts it
    #[command(hide = true)]
    Worker(Orders),
}

/// How to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Measure {
    /// A directory to measure, by a name of your choice; may be given more than once
    #[arg(long = "subject", value_name = "NAME=DIR", value_parser = pair)]
    pub subjects: Vec<(String, String)>,
    /// Which processes are that subject's daemons, by their command lines; without it only the load's and the machine's
    /// processor time are known
    #[arg(long, value_name = "NAME=REGEX", value_parser = pair, conflicts_with = "clusters")]
    pub daemons: Vec<(String, String)>,
    /// A cluster of three nodes on this machine (private namespaces, root) of the programs (glusterd, gluster,
    /// glusterfs, glusterfsd) in DIR, with one volume; may be given more than once
    #[arg(long = "cluster", value_name = "NAME=DIR", value_parser = pair)]
    pub clusters: Vec<(String, String)>,
    /// Measure a directory on the disk itself as well, where the clusters have their bricks
    #[arg(long)]
    pub local: bool,
    /// The clusters' volumes
    #[arg(long, value_enum, default_value = "replica3")]
    pub volume_type: VolumeType,
    /// `volume set` on each of the clusters' volumes
    #[arg(long = "volume-option", value_name = "KEY=VALUE", value_parser = pair)]
    pub volume_options: Vec<(String, String)>,
    /// One more argument for the mount's glusterfs of the cluster of that name
    #[arg(long = "client-option", value_name = "NAME=ARGUMENT", value_parser = pair, allow_hyphen_values = true)]
    pub client_options: Vec<(String, String)>,
    /// The subject that ratios refer to [default: the first one whose name begins with "glusterfs", else the first]
    #[arg(long, value_name = "NAME")]
    pub reference: Option<String>,
    /// Only phases whose name matches; may be given more than once
    #[arg(long, value_name = "REGEX", value_parser = |r: &str| Regex::new(r))]
    pub only: Vec<Regex>,
    /// Only phases of these groups
    #[arg(long, value_enum, value_delimiter = ',')]
    pub groups: Vec<Group>,
    /// Explain the phases, and end
    #[arg(long)]
    pub list: bool,
    /// How many times everything is measured [default: 3; 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: Option<u32>,
    /// A first impression in some minutes: few files, short phases, one run
    #[arg(long)]
    pub quick: bool,
    /// Small files of each of the two sets [default: 3000; 300 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub files: Option<u64>,
    /// Size of each small file, bytes
    #[arg(long, value_name = "BYTES", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub file_size: u64,
    /// Entries of the large directory [default: 100000; 3000 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub entries: Option<u64>,
    /// Files of the source tree [default: 2500; 250 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub tree_files: Option<u64>,
    /// Unpack and clone what is in this tar file instead of a made-up source tree
    #[arg(long, value_name = "FILE")]
    pub tar: Option<PathBuf>,
    /// Size of the streams' file, MiB [default: 512; 64 with --quick]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    pub stream: Option<u64>,
    /// How long each phase of random access takes [default: 10; 2 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// A phase that takes longer than this has failed, seconds
    #[arg(long, value_name = "N", default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub timeout: u64,
    /// Leave the kernel's caches alone: the cold phases are then warm, and nobody else on this machine is disturbed
    #[arg(long)]
    pub keep_caches: bool,
    /// A word about the circumstances, for the results: a commit, a kernel's settings
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Where results.json, results.md and the charts go
    #[arg(long, value_name = "DIR", default_value = "ladrillo-bench-results")]
    pub out: PathBuf,
    /// Where clusters and the local subject keep their data, on the disk to measure; removed at the end
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub work: PathBuf,
}

/// `NAME=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it is not NAME=VALUE".to_owned()),
    }
}

impl Measure {
    /// How much is measured.
    pub fn sizes(&self) -> Sizes {
        let or = |given: Option<u64>, usual: u64, quick: u64| given.unwrap_or(if self.quick { quick } else { usual });
        let files = or(self.files, 3000, 300);
        Sizes {
            files,
            file_bytes: usize::try_from(self.file_size).unwrap_or(4096),
            directories: 10.min(files),
            entries: or(self.entries, 100_000, 3000),
            tree_files: or(self.tree_files, 2500, 250),
            stream_mib: or(self.stream, 512, 64),
            seconds: or(self.seconds, 10, 2),
        }
    }

    /// How many times.
    pub fn run_count(&self) -> u32 {
        self.runs.unwrap_or(if self.quick { 1 } else { 3 })
    }

    /// The names of all subjects, in order.
    ///
    /// # Errors
    /// In words: none, a name that is there twice or cannot be one, or one that another option speaks of and is not there.
    pub fn names(&self) -> Result<Vec<String>, String> {
        let mut names: Vec<String> = self.clusters.iter().chain(&self.subjects).map(|(name, _)| name.clone()).collect();
        if self.local {
            names.push(LOCAL.to_owned());
        }
        if names.is_empty() {
            return Err("nothing to measure: give --subject NAME=DIR, --cluster NAME=DIR or --local".to_owned());
        }
        for (index, name) in names.iter().enumerate() {
            // A name is a directory's as well.
            if name.contains(['/', '\0', ',', ' ', ':']) || name.starts_with('.') || name.len() > 32 {
                return Err(format!("'{name}' cannot be a subject's name"));
            }
            if names.iter().take(index).any(|n| n == name) {
                return Err(format!("two subjects are named {name}"));
            }
        }
        let spoken = self.daemons.iter().chain(&self.client_options).map(|(name, _)| name).chain(&self.reference);
        for name in spoken {
            if !names.contains(name) {
                return Err(format!("no subject is named {name}"));
            }
        }
        Ok(names)
    }

    /// What ratios refer to, of these names.
    pub fn reference_of(&self, names: &[String]) -> String {
        let stock = || names.iter().find(|n| n.starts_with("glusterfs"));
        self.reference.as_ref().or_else(stock).or(names.first()).cloned().unwrap_or_default()
    }
}

/// The name of the local disk.
pub const LOCAL: &str = "local";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Measure, String> {
        let words = std::iter::once("ladrillo-bench").chain(line.split_whitespace());
        Args::try_parse_from(words).map(|a| a.measure).map_err(|e| e.to_string())
    }

    #[test]
    fn the_grammar_holds_together() {
        Args::command().debug_assert();
    }

    #[test]
    fn subjects_and_their_names() {
        let args = parse("--cluster ours=/a --subject b=/b=c --local --cluster glusterfs-10.3=/usr/sbin").unwrap();
        let names = args.names().unwrap();
        assert_eq!(names, ["ours", "glusterfs-10.3", "b", "local"]);
        assert_eq!(args.subjects, [("b".to_owned(), "/b=c".to_owned())]);
        assert_eq!(args.reference_of(&names), "glusterfs-10.3");
        assert_eq!(parse("--subject a=/a --subject b=/b").unwrap().reference_of(&["a".into(), "b".into()]), "a");
        assert!(parse("").unwrap().names().unwrap_err().contains("nothing to measure"));
        assert!(parse("--subject a=/a --cluster a=/b").unwrap().names().unwrap_err().contains("two subjects"));
        assert!(parse("--subject a/b=/a").unwrap().names().unwrap_err().contains("cannot be"));
        assert!(parse("--local --reference x").unwrap().names().unwrap_err().contains("no subject is named x"));
        assert!(parse("--subject nodir").is_err());
        assert!(parse("--cluster a=/b --daemons a=x").is_err());
        assert!(parse("--only (").is_err());
    }

    #[test]
    fn sizes_and_their_defaults() {
        let usual = parse("--local").unwrap();
        assert_eq!((usual.sizes().entries, usual.run_count()), (100_000, 3));
        let quick = parse("--local --quick --files 7 --runs 2").unwrap();
        let sizes = quick.sizes();
        assert_eq!((sizes.files, sizes.directories, sizes.entries, quick.run_count()), (7, 7, 3000, 2));
        assert!(parse("--local --runs 0").is_err());
        // The last one wins: scripts have their defaults in front.
        assert_eq!(parse("--local --out a --out b").unwrap().out, PathBuf::from("b"));
        let option = parse("--cluster a=/b --client-option a=--direct-io-mode=on").unwrap();
        assert_eq!(option.client_options[0].1, "--direct-io-mode=on");
    }
}
