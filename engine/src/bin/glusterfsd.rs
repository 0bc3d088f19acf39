//! The brick process.

fn main() {
    std::process::exit(ladrillo_engine::daemon::main());
}
