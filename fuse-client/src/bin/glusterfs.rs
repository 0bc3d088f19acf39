//! `glusterfs`: mounts volumes, heals them; under the name `mount.glusterfs` it is mount(8)'s helper.

fn main() -> std::process::ExitCode {
    ladrillo_fuse_client::process::main()
}
