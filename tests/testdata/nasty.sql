SET client_min_messages=warning;
CREATE ROLE "Odd Owner";
CREATE ROLE reader;
CREATE SCHEMA "Shop.Main" AUTHORIZATION "Odd Owner";
CREATE SCHEMA plain;
CREATE EXTENSION IF NOT EXISTS plpgsql;
CREATE TYPE plain.mood AS ENUM ('sad', 'ok', 'it''s');
CREATE DOMAIN plain.positive AS integer CHECK (VALUE > 0);
CREATE TYPE plain.pair AS (a integer, b text);
CREATE TABLE "Shop.Main"."Cust""omer; Type: TABLE" (
  "Id" bigint GENERATED ALWAYS AS IDENTITY, "na me" text NOT NULL DEFAULT 'x', "line
break" text, total numeric, doubled numeric GENERATED ALWAYS AS (total * 2) STORED, m plain.mood, p plain.positive, pr plain.pair, "ü" jsonb,
  PRIMARY KEY ("Id"));
INSERT INTO "Shop.Main"."Cust""omer; Type: TABLE" ("na me","line
break",total,m,p,pr,"ü") SELECT E'a\n\\.\n'||i, CASE WHEN i%3=0 THEN NULL ELSE E'\\N\t''"$$'||i END, CASE WHEN i%7=0 THEN 'NaN' ELSE (i/3.0)::text END::numeric, 'it''s', i, ROW(i,'x,"y')::plain.pair, '{"a":[1,2,"\u00e9"]}' FROM generate_series(1,500) i;
CREATE TABLE plain.serials (id serial, second bigserial, v text, CONSTRAINT serials_pk PRIMARY KEY (id, second));
INSERT INTO plain.serials(v) SELECT md5(i::text) FROM generate_series(1,3000) i;
CREATE TABLE plain.nokey (a int, b bytea, c float8, d timestamptz, e int[]);
INSERT INTO plain.nokey SELECT i, decode(md5(i::text),'hex'), CASE WHEN i%5=0 THEN 'NaN' WHEN i%7=0 THEN 'Infinity' ELSE i/7.0 END::float8, '2024-01-01Z'::timestamptz + i*interval '1 hour', ARRAY[i,NULL,2] FROM generate_series(1,100) i;
CREATE TABLE plain.empty (a int);
CREATE TABLE plain.nocols ();
INSERT INTO plain.nocols DEFAULT VALUES; INSERT INTO plain.nocols DEFAULT VALUES;
CREATE TABLE plain.big (id int PRIMARY KEY, body text);
INSERT INTO plain.big VALUES (1, repeat('0123456789abcdef', 524288)), (2, E'\\.'), (3, E'\n\\.\n'), (4, E'-- PostgreSQL database dump complete\n--\n-- Name: x; Type: TABLE; Schema: y; Owner: z\n--\n');
CREATE TABLE plain.part (id int, k text, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
CREATE TABLE plain.part_a PARTITION OF plain.part FOR VALUES IN ('a');
CREATE TABLE plain.part_rest PARTITION OF plain.part DEFAULT;
CREATE INDEX part_v ON plain.part (v);
INSERT INTO plain.part SELECT i, CASE WHEN i%2=0 THEN 'a' ELSE 'b' END, 'v'||i FROM generate_series(1,1000) i;
CREATE TABLE plain.left_ (id int PRIMARY KEY, r int);
CREATE TABLE plain.right_ (id int PRIMARY KEY, l int REFERENCES plain.left_);
ALTER TABLE plain.left_ ADD CONSTRAINT left_r FOREIGN KEY (r) REFERENCES plain.right_ DEFERRABLE INITIALLY DEFERRED;
BEGIN; INSERT INTO plain.left_ VALUES (1,1),(2,NULL); INSERT INTO plain.right_ VALUES (1,1),(2,2); COMMIT;
CREATE TABLE plain.base (a int, t text); CREATE TABLE plain.derived (b int) INHERITS (plain.base);
INSERT INTO plain.base VALUES (1,'x'); INSERT INTO plain.derived VALUES (2,'y',3);
CREATE FUNCTION plain.touch() RETURNS trigger LANGUAGE plpgsql AS $fn$
BEGIN
-- 
--
-- Name: fake; Type: TABLE; Schema: plain; Owner: postgres
--
  -- it's
/*
COPY plain.fake (a) FROM stdin;
1
\.
-- PostgreSQL database dump complete
*/
  RETURN NEW;
END $fn$;
CREATE FUNCTION plain.quoted() RETURNS text LANGUAGE sql AS 'SELECT ''
--
-- Name: fake2; Type: TABLE; Schema: plain; Owner: postgres
--
COPY plain.fake2 (a) FROM stdin;
''::text || $a$;$a$';
CREATE FUNCTION plain.atomic(i int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT i + 1; END;
CREATE TRIGGER "tr on" BEFORE INSERT OR UPDATE OF v ON plain.serials FOR EACH ROW EXECUTE FUNCTION plain.touch();
CREATE RULE r_ignore AS ON DELETE TO plain.nokey DO INSTEAD (INSERT INTO plain.empty VALUES (1); DELETE FROM plain.empty);
ALTER TABLE plain.nokey ENABLE ROW LEVEL SECURITY;
CREATE POLICY "only; mine" ON plain.nokey FOR SELECT TO reader, "Odd Owner" USING (a > 0);
CREATE INDEX "i dx" ON "Shop.Main"."Cust""omer; Type: TABLE" (lower("na me")) WHERE "na me" <> 'x';
CREATE UNIQUE INDEX nokey_u ON plain.nokey (a) INCLUDE (c);
CREATE STATISTICS plain.st (ndistinct) ON a, c FROM plain.nokey;
CREATE VIEW plain.v AS SELECT id, v FROM plain.serials;
CREATE MATERIALIZED VIEW plain.mv AS SELECT count(*) AS n FROM plain.serials;
CREATE INDEX mv_i ON plain.mv (n);
CREATE SEQUENCE plain.free START 42;
SELECT nextval('plain.free');
COMMENT ON TABLE plain.serials IS E'a comment; with\n--\n-- Name: fake3; Type: TABLE; Schema: plain; Owner: x\n--\n';
COMMENT ON COLUMN "Shop.Main"."Cust""omer; Type: TABLE"."na me" IS 'it''s';
COMMENT ON INDEX plain.nokey_u IS 'index'; COMMENT ON CONSTRAINT serials_pk ON plain.serials IS 'pk'; COMMENT ON TRIGGER "tr on" ON plain.serials IS 'tr';
COMMENT ON SEQUENCE plain.serials_id_seq IS 'seq';
GRANT SELECT ON plain.serials TO reader; GRANT SELECT (a) ON plain.nokey TO "Odd Owner" WITH GRANT OPTION; GRANT USAGE ON SEQUENCE plain.serials_id_seq TO reader;
ALTER TABLE plain.empty OWNER TO "Odd Owner";
ALTER DEFAULT PRIVILEGES IN SCHEMA plain GRANT SELECT ON TABLES TO reader;
SELECT lo_from_bytea(0, decode(repeat('deadbeef', 3000),'hex')); SELECT lo_from_bytea(0, ''); SELECT lo_from_bytea(0,'abc');
CREATE TABLE plain."dot.ted" ("a.b" int PRIMARY KEY, "c""d" text); INSERT INTO plain."dot.ted" VALUES (1,'x');
CREATE TABLE plain."new
line" (a int); INSERT INTO plain."new
line" VALUES (7);
ALTER TABLE plain.big ADD CONSTRAINT chk CHECK (id > 0) NOT VALID;
