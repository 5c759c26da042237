//! `restow key kit` and `restow key restore`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use restow::crypto::kit;
use restow::crypto::slot::{Kdf, Role, Secret, Slot};
use restow::error::Error;
use restow::repository::Repository;
use restow::repository::keys::restore_slot;
use zeroize::Zeroizing;

use super::say;
use crate::cli::{Global, open, output};

#[derive(Args)]
pub struct KitArgs {
    /// Write the kit to this file instead of printing it; nothing may be there
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Label for the slot
    #[arg(long, default_value = "recovery kit")]
    label: String,
}

/// Adds a slot with a secret of its own and writes both down.
pub fn make(global: &Global, args: &KitArgs) -> Result<()> {
    let repository = global.open()?;
    // The file comes first: a kit that nobody can read must not be a key.
    let mut file = args.out.as_deref().map(create).transpose()?;
    let mut secret = Zeroizing::new([0; 32]);
    repository.environment().entropy.fill(&mut *secret);
    let slot = repository.add_key(
        &Secret::KeyFile(Zeroizing::new(secret.to_vec())),
        Kdf::KeyFile,
        Role::Owner,
        &args.label,
    )?;
    let page = page(&repository, &slot, &secret);
    let written = page.and_then(|page| write(file.as_mut(), &page));
    if let Err(error) = written {
        // Nobody has it: better that it opens nothing.
        repository.remove_key(&slot)?;
        return Err(error);
    }
    if args.out.is_some() { say(global, "added", &slot) } else { Ok(()) }
}

fn create(path: &Path) -> Result<std::fs::File, Error> {
    let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let path = path.display().to_string();
    open.map_err(|source| Error::Io { action: "create the recovery kit", path, source })
}

fn write(file: Option<&mut std::fs::File>, page: &str) -> Result<()> {
    match file {
        Some(file) => {
            file.write_all(page.as_bytes())?;
            file.sync_all()?;
        }
        None => output::line(page.trim_end())?,
    }
    Ok(())
}

fn page(repository: &Repository, slot: &str, secret: &[u8; 32]) -> Result<Zeroizing<String>> {
    let line = kit::encode_secret(secret);
    let code = QrCode::new(line.as_bytes())?;
    let square = Zeroizing::new(code.render::<Dense1x2>().quiet_zone(true).build());
    let text = repository.store().get(&format!("keys/{slot}"))?;
    let lasting = serde_json::from_slice::<Slot>(&text)?.lasting_name();
    Ok(Zeroizing::new(format!(
        "restow recovery kit\n\
         ===================\n\n\
         repository  {location}\n\
         id          {id}\n\
         made        {made}\n\
         slot        {slot}\n\n\
         Whoever holds this page can read every backup in the repository. Keep it where you keep what\n\
         must survive the loss of every computer. Where it was lost, 'restow key remove {lasting}', then\n\
         'restow key rotate' and 'restow prune' make it worthless: all three.\n\n\
         To open the repository, put the next line into a file and run restow with --key-file FILE:\n\n\
         {line}\n\n\
         {square}\n\n\
         Where the folder keys/ of the repository was lost as well, put this whole page into a file and\n\
         run restow key restore FILE. After 'restow key rotate' only a new page helps with that.\n\n\
         {lines}",
        location = repository.store().location(),
        id = repository.config().id,
        made = repository.environment().clock.now().strftime("%Y-%m-%d %H:%M:%S UTC"),
        lasting = lasting,
        line = &*line,
        square = &*square,
        lines = kit::encode_slot(&text),
    )))
}

/// Puts the slot of a kit back.
pub fn restore(global: &Global, path: &PathBuf) -> Result<()> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
        action: "read the recovery kit",
        path: path.display().to_string(),
        source,
    })?;
    let text = Zeroizing::new(text);
    let misread = |error| Error::Usage(format!("{}: {error}", path.display()));
    let slot = kit::find_slot(&text).map_err(misread)?;
    let secret = open::read_key_file(path)?;
    let store = global.store()?;
    let name = restore_slot(&store, &slot, &secret)?;
    say(global, "restored", &name)
}
