//! The shim's executable, installed beside `klto`.

fn main() -> std::process::ExitCode {
    klto_shim::main()
}
