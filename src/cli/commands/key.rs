//! `restow key`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use restow::crypto::slot::{Kdf, Role, Secret};
use restow::error::Error;
use restow::repository::Repository;
use restow::repository::keys::NamedSlot;
use zeroize::Zeroizing;

use crate::cli::{Global, open, output};

mod kit;

/// Add, list, remove and change passwords and key files; rotate keys; make recovery kits
#[derive(Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// List the key slots; the one in use is marked
    List,
    /// Add a password or a key file
    Add(NewSecret),
    /// Remove a key slot
    Remove {
        /// Its name, or the first digits
        slot: String,
    },
    /// Replace the password or key file that this command was run with
    Passwd(NewSecret),
    /// Make a key file and add it
    File {
        /// Where to write it; nothing may be there
        file: PathBuf,
        /// Label for the slot
        #[arg(long, default_value = "")]
        label: String,
        /// A key that can add backups and read none
        #[arg(long)]
        write_only: bool,
    },
    /// Encrypt everything new with new keys from now on; prunes write anew what is old, and then
    /// destroy the old keys
    Rotate,
    /// Show what is encrypted with which keys
    Status,
    /// Make a recovery kit: a page to print that opens the repository when every password is lost
    Kit(kit::KitArgs),
    /// Put the slot of a recovery kit back where the slots of the repository were lost
    Restore {
        /// The kit
        kit: PathBuf,
    },
}

#[derive(Args)]
struct NewSecret {
    /// Read the new password from the first line of this file [default: ask]
    #[arg(long, value_name = "FILE", conflicts_with = "new_key_file")]
    new_password_file: Option<PathBuf>,
    /// Add a key file; it is made, with 32 random bytes, where it does not exist
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
    /// Label for the slot
    #[arg(long, default_value = "")]
    label: String,
    /// Add a key that can add backups and read none
    #[arg(long)]
    write_only: bool,
}

/// Works on the key slots.
pub fn run(global: &Global, args: KeyArgs) -> Result<u8> {
    match args.what {
        What::List => list(global)?,
        What::Add(new) => {
            let name = add(&global.open()?, &new)?;
            say(global, "added", &name)?;
        }
        What::File { file, label, write_only } => {
            let repository = global.open()?;
            if file.exists() {
                let text = format!("{} exists; 'key add --new-key-file' adds it", file.display());
                return Err(Error::Usage(text).into());
            }
            let new =
                NewSecret { new_password_file: None, new_key_file: Some(file), label, write_only };
            say(global, "added", &add(&repository, &new)?)?;
        }
        What::Rotate => rotate(global)?,
        What::Status => status(global)?,
        What::Kit(args) => kit::make(global, &args)?,
        What::Restore { kit } => kit::restore(global, &kit)?,
        What::Remove { slot } => {
            let name = global.open()?.remove_key(&slot)?;
            say(global, "removed", &name)?;
        }
        What::Passwd(new) if new.write_only => {
            return Err(Error::Usage("a write-only key replaces no other one".into()).into());
        }
        What::Passwd(new) => {
            let repository = global.open()?;
            let name = add(&repository, &new)?;
            let old = repository.remove_key(&repository.slot_in_use())?;
            say(global, "added", &name)?;
            say(global, "removed", &old)?;
        }
    }
    Ok(0)
}

fn list(global: &Global) -> Result<()> {
    let repository = global.open_read_only()?;
    let head = ["", "slot", "lasting name", "kind", "may", "created", "label"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for NamedSlot { name, slot } in repository.key_slots()? {
        let is_used = name == repository.slot_in_use();
        let mark = if is_used { "*" } else { "" };
        let mut row = vec![mark.to_owned(), name[..8].to_owned()];
        match slot {
            Ok(slot) => {
                let is_proven = slot.is_proven(repository.keys());
                let may = match slot.role {
                    _ if !is_proven => "nothing: made by no owner",
                    Role::Owner => "everything",
                    Role::WriteOnly => "write only",
                };
                let kind = if slot.kdf == Kdf::KeyFile { "key file" } else { "password" };
                if global.json {
                    output::json(&serde_json::json!({
                        "slot": name, "kind": kind, "created": slot.created, "label": slot.label,
                        "in_use": is_used, "role": slot.role, "proven": is_proven,
                        "lasting_name": slot.lasting_name(),
                    }))?;
                }
                let created = slot.created.strftime("%Y-%m-%d %H:%M:%S").to_string();
                let lasting = slot.lasting_name()[..8].to_owned();
                row.extend([lasting, kind.to_owned(), may.to_owned(), created, slot.label]);
            }
            Err(error) => {
                if global.json {
                    let error = error.to_string();
                    output::json(&serde_json::json!({ "slot": name, "damaged": error }))?;
                }
                row.extend(["", "damaged", "", "", ""].map(str::to_owned));
            }
        }
        rows.push(row);
    }
    if !global.json {
        output::table(&rows)?;
    }
    Ok(())
}

fn add(repository: &Repository, new: &NewSecret) -> Result<String> {
    let (secret, kdf) = match (&new.new_key_file, &new.new_password_file) {
        (Some(path), _) => (key_file(repository, path)?, Kdf::KeyFile),
        (None, Some(path)) => {
            let text = std::fs::read(path).map_err(|source| Error::Io {
                action: "read the new password file",
                path: path.display().to_string(),
                source,
            })?;
            (open::password(text)?, Kdf::PASSWORD)
        }
        (None, None) => (open::ask_password("new password", true)?, Kdf::PASSWORD),
    };
    let role = if new.write_only { Role::WriteOnly } else { Role::Owner };
    Ok(repository.add_key(&secret, kdf, role, &new.label)?)
}

fn rotate(global: &Global) -> Result<()> {
    let repository = global.open()?;
    let rotation = repository.rotate_keys()?;
    for name in &rotation.left_out {
        eprintln!(
            "restow: key slot {} was left out: no owner of this repository made it; 'restow key \
             remove' deletes it",
            &name[..8]
        );
    }
    if global.json {
        let slots = rotation.slots.len();
        let left_out = rotation.left_out;
        return Ok(output::json(&serde_json::json!({
            "message_type": "rotated", "epoch": rotation.epoch, "slots": slots,
            "left_out": left_out,
        }))?);
    }
    if !global.quiet {
        output::line(format!(
            "began epoch {}: {} key slots hold its keys. Everything new is encrypted with them; \
             'restow prune' writes the rest anew, then destroys the old ones",
            rotation.epoch,
            rotation.slots.len()
        ))?;
    }
    Ok(())
}

fn status(global: &Global) -> Result<()> {
    let repository = global.open_read_only()?;
    let head = ["", "epoch", "packs", "bytes", "idx objects", "snapshots"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for epoch in repository.key_use()? {
        if global.json {
            output::json(&serde_json::to_value(&epoch)?)?;
        }
        rows.push(vec![
            if epoch.is_current { "*" } else { "" }.to_owned(),
            epoch.epoch.to_string(),
            epoch.packs.to_string(),
            output::bytes(epoch.pack_bytes),
            epoch.indexes.to_string(),
            epoch.snapshots.to_string(),
        ]);
    }
    if !global.json {
        output::table(&rows)?;
    }
    Ok(())
}

/// An existing key file, or a new one that only its owner can read.
fn key_file(repository: &Repository, path: &PathBuf) -> Result<Secret> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if path.exists() {
        return open::read_key_file(path);
    }
    let mut content = Zeroizing::new(vec![0; 32]);
    repository.environment().entropy.fill(&mut content);
    let write = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&content)?;
        file.sync_all()
    };
    write().map_err(|source| Error::Io {
        action: "create the key file",
        path: path.display().to_string(),
        source,
    })?;
    Ok(Secret::KeyFile(content))
}

fn say(global: &Global, verb: &str, name: &str) -> Result<()> {
    if global.json {
        output::json(&serde_json::json!({"message_type": verb, "slot": name}))?;
    } else if !global.quiet {
        output::line(format!("{verb} key slot {}", &name[..8]))?;
    }
    Ok(())
}
