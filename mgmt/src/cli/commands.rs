//! Every command of GlusterFS 10.3: the pattern its usage text shows, the description its help shows, and what runs.
//!
//! The patterns and descriptions are what GlusterFS prints, word for word; scripts and people know them.

use super::grammar::{
    Command, Group, bitrot, bitrot_help, global_help, peer_help, quota, quota_help, snapshot_help, system_help,
    unsupported, volume_help,
};
use super::{Handler, peer, system, volume};

const fn entry(group: Group, pattern: &'static str, description: &'static str, run: Handler) -> Command {
    Command { group, pattern, description, run }
}

/// In the order GlusterFS registers them: of two with the same words, the later one's usage text is shown.
#[rustfmt::skip]
pub(super) static COMMANDS: &[Command] = &[
    // Volume
    entry(Group::Volume, "volume help", "display help for volume commands", volume_help),
    entry(Group::Volume, "volume info [all|<VOLNAME>]", "list information of all volumes", volume::info),
    entry(Group::Volume, "volume create <NEW-VOLNAME> [[replica <COUNT> [arbiter <COUNT>]]|[replica 2 thin-arbiter 1]] [disperse [<COUNT>]] [disperse-data <COUNT>] [redundancy <COUNT>] [transport <tcp|rdma|tcp,rdma>] <NEW-BRICK> <TA-BRICK>... [force]", "create a new volume of specified type with mentioned bricks", volume::create),
    entry(Group::Volume, "volume delete <VOLNAME>", "delete volume specified by <VOLNAME>", volume::delete),
    entry(Group::Volume, "volume start <VOLNAME> [force]", "start volume specified by <VOLNAME>", volume::start),
    entry(Group::Volume, "volume stop <VOLNAME> [force]", "stop volume specified by <VOLNAME>", volume::stop),
    entry(Group::Volume, "volume add-brick <VOLNAME> [<replica> <COUNT> [arbiter <COUNT>]] <NEW-BRICK> ... [force]", "add brick to volume <VOLNAME>", volume::add),
    entry(Group::Volume, "volume remove-brick <VOLNAME> [replica <COUNT>] <BRICK> ... <start|stop|status|commit|force>", "remove brick from volume <VOLNAME>", volume::remove),
    entry(Group::Volume, "volume rebalance <VOLNAME> {{fix-layout start} | {start [force]|stop|status}}", "rebalance operations", unsupported),
    entry(Group::Volume, "volume replace-brick <VOLNAME> <SOURCE-BRICK> <NEW-BRICK> {commit force}", "replace-brick operations", unsupported),
    entry(Group::Volume, "volume set <VOLNAME> <KEY> <VALUE>", "set options for volume <VOLNAME>", volume::set),
    entry(Group::Volume, "volume set <VOLNAME> group <GROUP>", "This option can be used for setting multiple pre-defined volume options where group_name is a file under /var/lib/glusterd/groups containing one key value pair per line", volume::set),
    entry(Group::Volume, "volume log <VOLNAME> rotate [BRICK]", "rotate the log file for corresponding volume/brick", unsupported),
    entry(Group::Volume, "volume sync <HOSTNAME> [all|<VOLNAME>]", "sync the volume information from a peer", unsupported),
    entry(Group::Volume, "volume reset <VOLNAME> [option] [force]", "reset all the reconfigured options", volume::reset),
    entry(Group::Volume, "volume geo-replication [<PRIMARY-VOLNAME>] [<SECONDARY-IP>]::[<SECONDARY-VOLNAME>] {\\\n create [[ssh-port n] [[no-verify] \\\n | [push-pem]]] [force] \\\n | start [force] \\\n | stop [force] \\\n | pause [force] \\\n | resume [force] \\\n | config [[[\\!]<option>] [<value>]] \\\n | status [detail] \\\n | delete [reset-sync-time]} ", "Geo-sync operations", unsupported),
    entry(Group::Volume, "volume profile <VOLNAME> {start|info [peek|incremental [peek]|cumulative|clear]|stop} [nfs]", "volume profile operations", volume::profile),
    entry(Group::Volume, "volume top <VOLNAME> {open|read|write|opendir|readdir|clear} [nfs|brick <brick>] [list-cnt <value>] | {read-perf|write-perf} [bs <size> count <count>] [brick <brick>] [list-cnt <value>]", "volume top operations", volume::top),
    entry(Group::Volume, "volume status [all | <VOLNAME> [nfs|shd|<BRICK>|quotad]] [detail|clients|mem|inode|fd|callpool|tasks|client-list]", "display status of all or specified volume(s)/brick", volume::status),
    entry(Group::Volume, "volume heal <VOLNAME> [enable | disable | full |statistics [heal-count [replica <HOSTNAME:BRICKNAME>]] |info [summary | split-brain] |split-brain {bigger-file <FILE> | latest-mtime <FILE> |source-brick <HOSTNAME:BRICKNAME> [<FILE>]} |granular-entry-heal {enable | disable}]", "self-heal commands on volume specified by <VOLNAME>", volume::heal),
    entry(Group::Volume, "volume statedump <VOLNAME> [[nfs|quotad] [all|mem|iobuf|callpool|priv|fd|inode|history]... | [client <hostname:process-id>]]", "perform statedump on bricks", volume::statedump),
    entry(Group::Volume, "volume list", "list all volumes in cluster", volume::list),
    entry(Group::Volume, "volume clear-locks <VOLNAME> <path> kind {blocked|granted|all}{inode [range]|entry [basename]|posix [range]}", "Clear locks held on path", volume::clear_locks),
    entry(Group::Volume, "volume barrier <VOLNAME> {enable|disable}", "Barrier/unbarrier file operations on a volume", unsupported),
    entry(Group::Volume, "volume get <VOLNAME|all> <key|all>", "Get the value of the all options or given option for volume <VOLNAME> or all option. gluster volume get all all is to get all global options", volume::get),
    entry(Group::Volume, "volume reset-brick <VOLNAME> <SOURCE-BRICK> {{start} | {<NEW-BRICK> commit}}", "reset-brick operations", unsupported),
    // Bitrot
    entry(Group::Bitrot, "volume bitrot help", "display help for volume bitrot commands", bitrot_help),
    entry(Group::Bitrot, "volume bitrot <VOLNAME> {enable|disable}", "Enable/disable bitrot for volume <VOLNAME>", bitrot),
    entry(Group::Bitrot, "volume bitrot <VOLNAME> signing-time <time-in-secs>", "Waiting time for an object after last fd is closed to start signing process", bitrot),
    entry(Group::Bitrot, "volume bitrot <VOLNAME> signer-threads <count>", "Number of signing process threads. Usually set to number of available cores", bitrot),
    entry(Group::Bitrot, "volume bitrot <VOLNAME> scrub-throttle {lazy|normal|aggressive}", "Set the speed of the scrubber for volume <VOLNAME>", bitrot),
    entry(Group::Bitrot, "volume bitrot <VOLNAME> scrub-frequency {hourly|daily|weekly|biweekly|monthly}", "Set the frequency of the scrubber for volume <VOLNAME>", bitrot),
    entry(Group::Bitrot, "volume bitrot <VOLNAME> scrub {pause|resume|status|ondemand}", "Pause/resume the scrubber for <VOLNAME>. Status displays the status of the scrubber. ondemand starts the scrubber immediately.", bitrot),
    entry(Group::Bitrot, "volume bitrot <VOLNAME> {enable|disable}\nvolume bitrot <VOLNAME> signing-time <time-in-secs>\nvolume bitrot <VOLNAME> signer-threads <count>\nvolume bitrot <volname> scrub-throttle {lazy|normal|aggressive}\nvolume bitrot <volname> scrub-frequency {hourly|daily|weekly|biweekly|monthly}\nvolume bitrot <volname> scrub {pause|resume|status|ondemand}", "", bitrot),
    // Quota
    entry(Group::Quota, "volume quota help", "display help for volume quota commands", quota_help),
    entry(Group::Quota, "volume quota <VOLNAME> {enable|disable|list [<path> ...]| list-objects [<path> ...] | remove <path>| remove-objects <path> | default-soft-limit <percent>}", "Enable/disable and configure quota for <VOLNAME>", quota),
    entry(Group::Quota, "volume quota <VOLNAME> {limit-usage <path> <size> [<percent>]}", "Set maximum size for <path> for <VOLNAME>", quota),
    entry(Group::Quota, "volume quota <VOLNAME> {limit-objects <path> <number> [<percent>]}", "Set the maximum number of entries allowed in <path> for <VOLNAME>", quota),
    entry(Group::Quota, "volume quota <VOLNAME> {alert-time|soft-timeout|hard-timeout} {<time>}", "Set quota timeout for <VOLNAME>", quota),
    entry(Group::Quota, "volume inode-quota <VOLNAME> enable", "Enable/disable inode-quota for <VOLNAME>", unsupported),
    entry(Group::Quota, "volume quota <VOLNAME> {enable|disable|list [<path> ...]| list-objects [<path> ...] | remove <path>| remove-objects <path> | default-soft-limit <percent>}\nvolume quota <VOLNAME> {limit-usage <path> <size> [<percent>]}\nvolume quota <VOLNAME> {limit-objects <path> <number> [<percent>]}\nvolume quota <VOLNAME> {alert-time|soft-timeout|hard-timeout} {<time>}", "", quota),
    // Peer
    entry(Group::Peer, "peer probe { <HOSTNAME> | <IP-address> }", "probe peer specified by <HOSTNAME>", peer::probe),
    entry(Group::Peer, "peer detach { <HOSTNAME> | <IP-address> } [force]", "detach peer specified by <HOSTNAME>", peer::detach),
    entry(Group::Peer, "peer status", "list status of peers", peer::status),
    entry(Group::Peer, "peer help", "display help for peer commands", peer_help),
    entry(Group::Peer, "pool list", "list all the nodes in the pool (including localhost)", peer::pool_list),
    // System
    entry(Group::System, "system:: getspec <VOLNAME>", "fetch the volume file for the volume <VOLNAME>", system::getspec),
    entry(Group::System, "system:: portmap brick2port <BRICK>", "query which port <BRICK> listens on", unsupported),
    entry(Group::System, "system:: fsm log [<peer-name>]", "display fsm transitions", unsupported),
    entry(Group::System, "system:: getwd", "query glusterd work directory", system::getwd),
    entry(Group::System, "system:: mount <label> <args...>", "request a mount", unsupported),
    entry(Group::System, "system:: umount <path> [lazy]", "request an umount", unsupported),
    entry(Group::System, "system:: uuid get", "get uuid of glusterd", system::uuid_get),
    entry(Group::System, "system:: uuid reset", "reset the uuid of glusterd", unsupported),
    entry(Group::System, "system:: help", "display help for system commands", system_help),
    entry(Group::System, "system:: copy file [<filename>]", "Copy file from current node's $working_dir to $working_dir of all cluster nodes", unsupported),
    entry(Group::System, "system:: execute <command> <args>", "Execute the command on all the nodes in the cluster and display their output.", unsupported),
    // Snapshot
    entry(Group::Snapshot, "snapshot help", "display help for snapshot commands", snapshot_help),
    entry(Group::Snapshot, "snapshot create <snapname> <volname> [no-timestamp] [description <description>]", "Snapshot Create.", unsupported),
    entry(Group::Snapshot, "snapshot clone <clonename> <snapname>", "Snapshot Clone.", unsupported),
    entry(Group::Snapshot, "snapshot restore <snapname>", "Snapshot Restore.", unsupported),
    entry(Group::Snapshot, "snapshot status [(snapname | volume <volname>)]", "Snapshot Status.", unsupported),
    entry(Group::Snapshot, "snapshot info [(snapname | volume <volname>)]", "Snapshot Info.", unsupported),
    entry(Group::Snapshot, "snapshot list [volname]", "Snapshot List.", unsupported),
    entry(Group::Snapshot, "snapshot config [volname] ([snap-max-hard-limit <count>] [snap-max-soft-limit <percent>]) | ([auto-delete <enable|disable>])| ([activate-on-create <enable|disable>])", "Snapshot Config.", unsupported),
    entry(Group::Snapshot, "snapshot delete (all | snapname | volume <volname>)", "Snapshot Delete.", unsupported),
    entry(Group::Snapshot, "snapshot activate <snapname> [force]", "Activate snapshot volume.", unsupported),
    entry(Group::Snapshot, "snapshot deactivate <snapname>", "Deactivate snapshot volume.", unsupported),
    // Global
    entry(Group::Global, "global help", "list global commands", global_help),
    entry(Group::Global, "get-state [<daemon>] [[odir </path/to/output/dir/>] [file <filename>]] [detail|volumeoptions]", "Get local state representation of mentioned daemon", unsupported),
    entry(Group::Global, "nfs-ganesha {enable| disable} ", "Enable/disable NFS-Ganesha support", unsupported),
];
