//! The verbs completions and man: what a shell and a reader need, made from the command line's own
//! definition, so that they never fall behind it.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Command, Subcommand};
use clap_complete::Shell;
use clap_mangen::Man;

/// What the program tells of itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Manual {
    /// Print the completions of a shell
    #[command(after_help = "\
Examples:
  udht-sync completions bash > ~/.local/share/bash-completion/completions/udht-sync
  udht-sync completions zsh > ~/.zfunc/_udht-sync        (with ~/.zfunc in fpath)
  udht-sync completions fish > ~/.config/fish/completions/udht-sync.fish")]
    Completions {
        /// Of which shell
        shell: Shell,
    },
    /// Print the man page, or write those of all verbs
    #[command(after_help = "\
Examples:
  udht-sync man | man -l -
  udht-sync man ~/.local/share/man/man1")]
    Man {
        /// Write the page of the program and of each verb to this directory, made if it is missing
        #[arg(value_name = "DIRECTORY")]
        directory: Option<PathBuf>,
    },
}

impl Manual {
    /// Writes what was asked for about `program`.
    pub(crate) fn write(&self, program: Command, out: &mut impl Write) -> io::Result<()> {
        let mut text = Vec::new();
        // There is no need to be told of the help where `--help` is.
        let mut program = program.disable_help_subcommand(true);
        program.build();
        match self {
            Self::Completions { shell } => {
                let name = program.get_name().to_owned();
                clap_complete::generate(*shell, &mut program, name, &mut text);
                // In bash no flag of a verb is completed without this, as the program's name has
                // a hyphen: https://github.com/clap-rs/clap/issues/6421.
                let mended = String::from_utf8_lossy(&text).replace("udht__subcmd__", "udht__");
                text = mended.into_bytes();
            }
            Self::Man { directory: None } => Man::new(program).render(&mut text)?,
            Self::Man {
                directory: Some(directory),
            } => {
                std::fs::create_dir_all(directory)?;
                return clap_mangen::generate_to(program, directory);
            }
        }
        // In one piece, as the generators do not expect that nobody reads to the end.
        out.write_all(&text).and_then(|()| out.flush())
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::process::Stdio;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn written(manual: &Manual) -> String {
        let mut text = Vec::new();
        manual.write(Cli::command(), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// What `program` answers to `input`; `None` where it is not installed.
    fn fed(program: &str, arguments: &[&str], input: &str) -> Option<String> {
        let mut command = std::process::Command::new(program);
        command.args(arguments).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            spawned => spawned.unwrap(),
        };
        let mut stdin = child.stdin.take().unwrap();
        // A shell that finds an error may end before it has read all.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let [said, wrong] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
        assert!(
            output.status.success() && wrong.is_empty(),
            "{program}: {wrong}"
        );
        Some(said)
    }

    #[test]
    fn every_shell_reads_its_completions() {
        for (shell, check) in [
            (Shell::Bash, ["bash", "-n"]),
            (Shell::Zsh, ["zsh", "-n"]),
            (Shell::Fish, ["fish", "--no-execute"]),
        ] {
            let script = written(&Manual::Completions { shell });
            for verb in Cli::command().get_subcommands() {
                assert!(script.contains(verb.get_name()), "{shell}: {verb}");
            }
            let [program, flag] = check;
            // Only bash is sure to be there.
            let read = fed(program, &[flag], &script);
            assert!(read.is_some() || shell != Shell::Bash);
        }
    }

    #[test]
    fn bash_completes_a_verb_and_a_flag() {
        let script = written(&Manual::Completions { shell: Shell::Bash });
        for (typed, whole) in [("exch", "exchange"), ("serve --sync-i", "--sync-interval")] {
            let words: Vec<_> = typed.split(' ').collect();
            let last = words.last().unwrap();
            let ask = format!(
                "{script}\nCOMP_WORDS=(udht-sync {typed})\nCOMP_CWORD={}\n\
                 function=$(complete -p udht-sync | sed 's/.* -F //; s/ .*//')\n\
                 $function udht-sync {last} ''\necho \"${{COMPREPLY[@]}}\"\n",
                words.len()
            );
            assert_eq!(fed("bash", &[], &ask).unwrap().trim(), whole);
        }
    }

    #[test]
    fn the_man_pages_tell_of_every_verb_and_flag() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Some(folder.path().join("man1"));
        assert_eq!(written(&Manual::Man { directory }), "");
        let mut program = Cli::command().disable_help_subcommand(true);
        program.build();
        let page = |name: &str| {
            let path = folder.path().join("man1").join(name);
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
        };
        let main = page("udht-sync.1");
        assert_eq!(main, written(&Manual::Man { directory: None }));
        for verb in program.get_subcommands() {
            let name = verb.get_name();
            let listed = format!("udht\\-sync\\-{}(1)", name.replace('-', "\\-"));
            assert!(main.contains(&listed), "{name}: {main}");
            let page = page(&format!("udht-sync-{name}.1"));
            let shown = verb.get_arguments().filter(|it| !it.is_hide_set());
            for flag in shown.filter_map(clap::Arg::get_long) {
                let flag = format!("\\-\\-{}", flag.replace('-', "\\-"));
                assert!(page.contains(&flag), "{name} {flag}: {page}");
            }
            // Where man is, it has nothing to find fault with.
            if let Some(text) = fed("man", &["--warnings", "-l", "-"], &page) {
                assert!(text.contains("SYNOPSIS"), "{text}");
            }
        }
    }
}
