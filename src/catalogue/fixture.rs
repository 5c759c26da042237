//! Small archives made by hand, real dumps of small databases, and noise, for tests.

/// An archive of pg_dump 15, 16 and 18 each (1.14, 1.15, 1.16), written to a pipe.
pub(super) const ARCHIVES: [&[u8]; 3] = [
    include_bytes!("testdata/pg15.archive"),
    include_bytes!("testdata/pg16.archive"),
    include_bytes!("testdata/pg18.archive"),
];

/// The same databases as SQL text of pg_dump 15 (`-C`) and 18, of pg_dump 18 with `--inserts`; a
/// database of MariaDB 10.11, and two in one dump.
pub(super) const DUMPS: [&[u8]; 5] = [
    include_bytes!("testdata/pg15.sql"),
    include_bytes!("testdata/pg18.sql"),
    include_bytes!("testdata/pg18-inserts.sql"),
    include_bytes!("testdata/mariadb.sql"),
    include_bytes!("testdata/mariadb-databases.sql"),
];

/// One entry of an archive to be made.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    pub id: i32,
    pub desc: &'static str,
    pub schema: &'static str,
    pub tag: &'static str,
    pub defn: &'static str,
    pub copy: &'static str,
    pub deps: &'static [i32],
    /// The chunks of its block of rows.
    pub rows: Option<&'static [&'static str]>,
}

/// Makes an archive of version 1.`minor`; `seekable` ones say where their blocks are.
pub(super) fn archive(minor: u8, seekable: bool, entries: &[Entry]) -> Vec<u8> {
    let head = head(minor, entries, |_| 0, seekable);
    let mut data = Vec::new();
    let mut places = Vec::new();
    for entry in entries {
        places.push((head.len() + data.len()) as u64);
        let Some(chunks) = entry.rows else { continue };
        data.push(1);
        int(&mut data, entry.id);
        for chunk in chunks {
            string(&mut data, Some(chunk));
        }
        int(&mut data, 0);
    }
    let mut out = self::head(minor, entries, |index| places[index], seekable);
    out.extend(data);
    out
}

fn head(minor: u8, entries: &[Entry], place: impl Fn(usize) -> u64, seekable: bool) -> Vec<u8> {
    let mut out = b"PGDMP".to_vec();
    out.extend([1, minor, 0, 4, 8, 1]);
    if minor < 15 {
        int(&mut out, 0)
    } else {
        out.push(0)
    }
    for part in [4, 11, 4, 21, 10, 125, 0] {
        int(&mut out, part);
    }
    for text in ["shop", "15.1", "15.2"] {
        string(&mut out, Some(text));
    }
    int(&mut out, entries.len() as i32);
    for (index, entry) in entries.iter().enumerate() {
        int(&mut out, entry.id);
        int(&mut out, i32::from(entry.rows.is_some()));
        for text in ["1259", "16384", entry.tag, entry.desc] {
            string(&mut out, Some(text));
        }
        int(&mut out, if entry.rows.is_some() { 3 } else { 2 });
        for text in [entry.defn, "", entry.copy, entry.schema, ""] {
            string(&mut out, Some(text).filter(|text| !text.is_empty()));
        }
        if minor >= 14 {
            string(&mut out, Some("heap"));
        }
        if minor >= 16 {
            int(&mut out, i32::from(b'r'));
        }
        string(&mut out, Some("owner"));
        string(&mut out, Some("false"));
        for id in entry.deps {
            string(&mut out, Some(&id.to_string()));
        }
        string(&mut out, None);
        out.push(match (entry.rows.is_some(), seekable) {
            (false, _) => 3,
            (true, true) => 2,
            (true, false) => 1,
        });
        let place = if seekable && entry.rows.is_some() { place(index) } else { 0 };
        out.extend(place.to_le_bytes());
    }
    out
}

fn int(out: &mut Vec<u8>, value: i32) {
    out.push(u8::from(value < 0));
    out.extend(value.unsigned_abs().to_le_bytes());
}

fn string(out: &mut Vec<u8>, text: Option<&str>) {
    int(out, text.map_or(-1, |text| text.len() as i32));
    out.extend(text.unwrap_or_default().bytes());
}

/// Two tables, a key, a foreign key, an owned sequence.
pub(super) fn shop() -> Vec<Entry> {
    let entry = Entry { schema: "s", ..Entry::default() };
    let table = |id, tag, defn| Entry { id, desc: "TABLE", tag, defn, ..entry.clone() };
    let data = |id, tag, copy, rows| {
        let rows = Some(rows);
        Entry { id, desc: "TABLE DATA", tag, copy, rows, ..entry.clone() }
    };
    vec![
        Entry { id: 2, desc: "SCHEMA", tag: "s", defn: "CREATE SCHEMA s;\n", ..Entry::default() },
        table(4, "a b", "CREATE TABLE s.\"a b\" (\n    id integer\n);\n"),
        table(5, "c", "CREATE TABLE s.c (\n    x integer\n);\n"),
        Entry {
            id: 6,
            desc: "SEQUENCE",
            tag: "q",
            defn: "CREATE SEQUENCE s.q\n    CACHE 1;\n",
            ..entry.clone()
        },
        Entry {
            id: 7,
            desc: "SEQUENCE OWNED BY",
            tag: "q",
            defn: "ALTER SEQUENCE s.q OWNED BY s.\"a b\".id;\n",
            deps: &[6],
            ..entry.clone()
        },
        data(
            8,
            "a b",
            "COPY s.\"a b\" (id, \"n,\"\"x\") FROM stdin;\n",
            &["1\t\\N\n", "2\t\\\\.\n3", "\tx\n", "\\.", "\n\n\n"],
        ),
        data(9, "c", "COPY s.c (x) FROM stdin;\n", &["\\.\n\n\n"]),
        Entry {
            id: 10,
            desc: "SEQUENCE SET",
            tag: "q",
            defn: "SELECT pg_catalog.setval('s.q', 3, true);\n",
            deps: &[6],
            ..entry.clone()
        },
        Entry {
            id: 11,
            desc: "CONSTRAINT",
            tag: "a b pk",
            defn: "ALTER TABLE ONLY s.\"a b\"\n    ADD CONSTRAINT pk PRIMARY KEY (id, \"n,\"\"x\");\n",
            deps: &[4],
            ..entry.clone()
        },
        Entry {
            id: 12,
            desc: "FK CONSTRAINT",
            tag: "c fk",
            defn: "ALTER TABLE ONLY s.c\n    ADD CONSTRAINT fk FOREIGN KEY (x) REFERENCES s.\"a b\"(id);\n",
            deps: &[5, 4, 11],
            ..entry.clone()
        },
        Entry {
            id: 13,
            desc: "COMMENT",
            tag: "CONSTRAINT fk ON c",
            defn: "COMMENT ON CONSTRAINT fk ON s.c IS 'x';\n",
            deps: &[12],
            ..entry
        },
    ]
}

/// Numbers that are the same in every run.
pub(super) struct Noise(pub u64);

impl Noise {
    /// The next number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % end.max(1)
    }

    /// `bytes` with some changed, cut out or doubled, perhaps cut short.
    pub fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..1 + self.below(6) {
            let at = self.below(out.len());
            let end = (at + self.below(40)).min(out.len());
            match self.below(6) {
                0 => out.truncate(at),
                1 => drop(out.drain(at..end)),
                2 => {
                    let piece = out[at..end].to_vec();
                    let target = self.below(out.len());
                    out.splice(target..target, piece);
                }
                3 => out.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (at % 8)),
                4 => out.iter_mut().skip(at).take(4).for_each(|byte| *byte = 0xff),
                _ => {
                    let signs = b"'\"`$;-\\\n(*/.";
                    let sign = signs[self.below(signs.len())];
                    out.iter_mut().skip(at).take(1).for_each(|byte| *byte = sign);
                }
            }
        }
        out
    }
}
