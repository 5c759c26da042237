--
-- PostgreSQL database dump
--

\restrict AEfqzzePDKvOgIH4LfoyN8QiV1yy3rZFx5TQDcIS3O3Y1zYs0x3YHQ078Fli9pj

-- Dumped from database version 15.20 (Debian 15.20-0+deb12u1)
-- Dumped by pg_dump version 15.20 (Debian 15.20-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: small; Type: DATABASE; Schema: -; Owner: postgres
--

CREATE DATABASE small WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C';


ALTER DATABASE small OWNER TO postgres;

\unrestrict AEfqzzePDKvOgIH4LfoyN8QiV1yy3rZFx5TQDcIS3O3Y1zYs0x3YHQ078Fli9pj
\connect small
\restrict AEfqzzePDKvOgIH4LfoyN8QiV1yy3rZFx5TQDcIS3O3Y1zYs0x3YHQ078Fli9pj

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: Shop.Main; Type: SCHEMA; Schema: -; Owner: Odd Owner
--

CREATE SCHEMA "Shop.Main";


ALTER SCHEMA "Shop.Main" OWNER TO "Odd Owner";

--
-- Name: plain; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA plain;


ALTER SCHEMA plain OWNER TO postgres;

--
-- Name: mood; Type: TYPE; Schema: plain; Owner: postgres
--

CREATE TYPE plain.mood AS ENUM (
    'sad',
    'ok',
    'it''s'
);


ALTER TYPE plain.mood OWNER TO postgres;

--
-- Name: pair; Type: TYPE; Schema: plain; Owner: postgres
--

CREATE TYPE plain.pair AS (
	a integer,
	b text
);


ALTER TYPE plain.pair OWNER TO postgres;

--
-- Name: positive; Type: DOMAIN; Schema: plain; Owner: postgres
--

CREATE DOMAIN plain.positive AS integer
	CONSTRAINT positive_check CHECK ((VALUE > 0));


ALTER DOMAIN plain.positive OWNER TO postgres;

--
-- Name: atomic(integer); Type: FUNCTION; Schema: plain; Owner: postgres
--

CREATE FUNCTION plain.atomic(i integer) RETURNS integer
    LANGUAGE sql
    BEGIN ATOMIC
 SELECT 1;
 SELECT (i + 1);
END;


ALTER FUNCTION plain.atomic(i integer) OWNER TO postgres;

--
-- Name: quoted(); Type: FUNCTION; Schema: plain; Owner: postgres
--

CREATE FUNCTION plain.quoted() RETURNS text
    LANGUAGE sql
    AS $_$SELECT '
--
-- Name: fake2; Type: TABLE; Schema: plain; Owner: postgres
--
COPY plain.fake2 (a) FROM stdin;
'::text || $a$;$a$$_$;


ALTER FUNCTION plain.quoted() OWNER TO postgres;

--
-- Name: touch(); Type: FUNCTION; Schema: plain; Owner: postgres
--

CREATE FUNCTION plain.touch() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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
END $$;


ALTER FUNCTION plain.touch() OWNER TO postgres;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: Cust"omer; Type: TABLE; Type: TABLE; Schema: Shop.Main; Owner: postgres
--

CREATE TABLE "Shop.Main"."Cust""omer; Type: TABLE" (
    "Id" bigint NOT NULL,
    "na me" text DEFAULT 'x'::text NOT NULL,
    "line
break" text,
    total numeric,
    doubled numeric GENERATED ALWAYS AS ((total * (2)::numeric)) STORED,
    m plain.mood,
    p plain.positive,
    pr plain.pair,
    "ü" jsonb
);


ALTER TABLE "Shop.Main"."Cust""omer; Type: TABLE" OWNER TO postgres;

--
-- Name: COLUMN "Cust""omer; Type: TABLE"."na me"; Type: COMMENT; Schema: Shop.Main; Owner: postgres
--

COMMENT ON COLUMN "Shop.Main"."Cust""omer; Type: TABLE"."na me" IS 'it''s';


--
-- Name: Cust"omer; Type: TABLE_Id_seq; Type: SEQUENCE; Schema: Shop.Main; Owner: postgres
--

ALTER TABLE "Shop.Main"."Cust""omer; Type: TABLE" ALTER COLUMN "Id" ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME "Shop.Main"."Cust""omer; Type: TABLE_Id_seq"
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: base; Type: TABLE; Schema: plain; Owner: postgres
--

CREATE TABLE plain.base (
    a integer,
    t text
);


ALTER TABLE plain.base OWNER TO postgres;

--
-- Name: big; Type: TABLE; Schema: plain; Owner: postgres
--

CREATE TABLE plain.big (
    id integer NOT NULL,
    body text
);


ALTER TABLE plain.big OWNER TO postgres;

--
-- Name: derived; Type: TABLE; Schema: plain; Owner: postgres
--

CREATE TABLE plain.derived (
    b integer
)
INHERITS (plain.base);


ALTER TABLE plain.derived OWNER TO postgres;

--
-- Name: dot.ted; Type: TABLE; Schema: plain; Owner: postgres
--

CREATE TABLE plain."dot.ted" (
    "a.b" integer NOT NULL,
    "c""d" text
);


ALTER TABLE plain."dot.ted" OWNER TO postgres;

--
-- Name: empty; Type: TABLE; Schema: plain; Owner: Odd Owner
--

CREATE TABLE plain.empty (
    a integer
);


ALTER TABLE plain.empty OWNER TO "Odd Owner";

--
-- Name: free; Type: SEQUENCE; Schema: plain; Owner: postgres
--

CREATE SEQUENCE plain.free
    START WITH 42
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER TABLE plain.free OWNER TO postgres;

--
-- Name: left_; Type: TABLE; Schema: plain; Owner: postgres
--

CREATE TABLE plain.left_ (
    id integer NOT NULL,
    r integer
);


ALTER TABLE plain.left_ OWNER TO postgres;

--
-- Name: serials; Type: TABLE; Schema: plain; Owner: postgres
--

CREATE TABLE plain.serials (
    id integer NOT NULL,
    second bigint NOT NULL,
    v text
);


ALTER TABLE plain.serials OWNER TO postgres;

--
-- Name: TABLE serials; Type: COMMENT; Schema: plain; Owner: postgres
--

COMMENT ON TABLE plain.serials IS 'a comment; with
--
-- Name: fake3; Type: TABLE; Schema: plain; Owner: x
--
';


--
-- Name: mv; Type: MATERIALIZED VIEW; Schema: plain; Owner: postgres
--

CREATE MATERIALIZED VIEW plain.mv AS
 SELECT count(*) AS n
   FROM plain.serials
  WITH NO DATA;


ALTER TABLE plain.mv OWNER TO postgres;

--
-- Name: new line; Type: TABLE; Schema: plain; Owner: postgres
--

CREATE TABLE plain."new
line" (
    a integer
);


ALTER TABLE plain."new
line" OWNER TO postgres;

--
-- Name: nocols; Type: TABLE; Schema: plain; Owner: postgres
--

CREATE TABLE plain.nocols (
);


ALTER TABLE plain.nocols OWNER TO postgres;

--
-- Name: nokey; Type: TABLE; Schema: plain; Owner: postgres
--

CREATE TABLE plain.nokey (
    a integer,
    b bytea,
    c double precision,
    d timestamp with time zone,
    e integer[]
);


ALTER TABLE plain.nokey OWNER TO postgres;

--
-- Name: part; Type: TABLE; Schema: plain; Owner: postgres
--

CREATE TABLE plain.part (
    id integer NOT NULL,
    k text NOT NULL,
    v text
)
PARTITION BY LIST (k);


ALTER TABLE plain.part OWNER TO postgres;

--
-- Name: part_a; Type: TABLE; Schema: plain; Owner: postgres
--

CREATE TABLE plain.part_a (
    id integer NOT NULL,
    k text NOT NULL,
    v text
);


ALTER TABLE plain.part_a OWNER TO postgres;

--
-- Name: part_rest; Type: TABLE; Schema: plain; Owner: postgres
--

CREATE TABLE plain.part_rest (
    id integer NOT NULL,
    k text NOT NULL,
    v text
);


ALTER TABLE plain.part_rest OWNER TO postgres;

--
-- Name: right_; Type: TABLE; Schema: plain; Owner: postgres
--

CREATE TABLE plain.right_ (
    id integer NOT NULL,
    l integer
);


ALTER TABLE plain.right_ OWNER TO postgres;

--
-- Name: serials_id_seq; Type: SEQUENCE; Schema: plain; Owner: postgres
--

CREATE SEQUENCE plain.serials_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER TABLE plain.serials_id_seq OWNER TO postgres;

--
-- Name: serials_id_seq; Type: SEQUENCE OWNED BY; Schema: plain; Owner: postgres
--

ALTER SEQUENCE plain.serials_id_seq OWNED BY plain.serials.id;


--
-- Name: SEQUENCE serials_id_seq; Type: COMMENT; Schema: plain; Owner: postgres
--

COMMENT ON SEQUENCE plain.serials_id_seq IS 'seq';


--
-- Name: serials_second_seq; Type: SEQUENCE; Schema: plain; Owner: postgres
--

CREATE SEQUENCE plain.serials_second_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER TABLE plain.serials_second_seq OWNER TO postgres;

--
-- Name: serials_second_seq; Type: SEQUENCE OWNED BY; Schema: plain; Owner: postgres
--

ALTER SEQUENCE plain.serials_second_seq OWNED BY plain.serials.second;


--
-- Name: v; Type: VIEW; Schema: plain; Owner: postgres
--

CREATE VIEW plain.v AS
 SELECT serials.id,
    serials.v
   FROM plain.serials;


ALTER TABLE plain.v OWNER TO postgres;

--
-- Name: part_a; Type: TABLE ATTACH; Schema: plain; Owner: postgres
--

ALTER TABLE ONLY plain.part ATTACH PARTITION plain.part_a FOR VALUES IN ('a');


--
-- Name: part_rest; Type: TABLE ATTACH; Schema: plain; Owner: postgres
--

ALTER TABLE ONLY plain.part ATTACH PARTITION plain.part_rest DEFAULT;


--
-- Name: serials id; Type: DEFAULT; Schema: plain; Owner: postgres
--

ALTER TABLE ONLY plain.serials ALTER COLUMN id SET DEFAULT nextval('plain.serials_id_seq'::regclass);


--
-- Name: serials second; Type: DEFAULT; Schema: plain; Owner: postgres
--

ALTER TABLE ONLY plain.serials ALTER COLUMN second SET DEFAULT nextval('plain.serials_second_seq'::regclass);


--
-- Name: 17000; Type: BLOB; Schema: -; Owner: postgres
--

SELECT pg_catalog.lo_create('17000');


ALTER LARGE OBJECT 17000 OWNER TO postgres;

--
-- Name: 17001; Type: BLOB; Schema: -; Owner: postgres
--

SELECT pg_catalog.lo_create('17001');


ALTER LARGE OBJECT 17001 OWNER TO postgres;

--
-- Name: 17002; Type: BLOB; Schema: -; Owner: postgres
--

SELECT pg_catalog.lo_create('17002');


ALTER LARGE OBJECT 17002 OWNER TO postgres;

--
-- Data for Name: Cust"omer; Type: TABLE; Type: TABLE DATA; Schema: Shop.Main; Owner: postgres
--

COPY "Shop.Main"."Cust""omer; Type: TABLE" ("Id", "na me", "line
break", total, m, p, pr, "ü") FROM stdin;
1	a\n\\.\n1	\\N\t'"$$1	0.33333333333333333333	it's	1	(1,"x,""y")	{"a": [1, 2, "é"]}
2	a\n\\.\n2	\\N\t'"$$2	0.66666666666666666667	it's	2	(2,"x,""y")	{"a": [1, 2, "é"]}
3	a\n\\.\n3	\N	1.00000000000000000000	it's	3	(3,"x,""y")	{"a": [1, 2, "é"]}
4	a\n\\.\n4	\\N\t'"$$4	1.3333333333333333	it's	4	(4,"x,""y")	{"a": [1, 2, "é"]}
5	a\n\\.\n5	\\N\t'"$$5	1.6666666666666667	it's	5	(5,"x,""y")	{"a": [1, 2, "é"]}
6	a\n\\.\n6	\N	2.0000000000000000	it's	6	(6,"x,""y")	{"a": [1, 2, "é"]}
7	a\n\\.\n7	\\N\t'"$$7	NaN	it's	7	(7,"x,""y")	{"a": [1, 2, "é"]}
8	a\n\\.\n8	\\N\t'"$$8	2.6666666666666667	it's	8	(8,"x,""y")	{"a": [1, 2, "é"]}
9	a\n\\.\n9	\N	3.0000000000000000	it's	9	(9,"x,""y")	{"a": [1, 2, "é"]}
10	a\n\\.\n10	\\N\t'"$$10	3.3333333333333333	it's	10	(10,"x,""y")	{"a": [1, 2, "é"]}
\.


--
-- Data for Name: base; Type: TABLE DATA; Schema: plain; Owner: postgres
--

COPY plain.base (a, t) FROM stdin;
1	x
\.


--
-- Data for Name: big; Type: TABLE DATA; Schema: plain; Owner: postgres
--

COPY plain.big (id, body) FROM stdin;
1	0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
2	\\.
3	\n\\.\n
4	-- PostgreSQL database dump complete\n--\n-- Name: x; Type: TABLE; Schema: y; Owner: z\n--\n
\.


--
-- Data for Name: derived; Type: TABLE DATA; Schema: plain; Owner: postgres
--

COPY plain.derived (a, t, b) FROM stdin;
2	y	3
\.


--
-- Data for Name: dot.ted; Type: TABLE DATA; Schema: plain; Owner: postgres
--

COPY plain."dot.ted" ("a.b", "c""d") FROM stdin;
1	x
\.


--
-- Data for Name: empty; Type: TABLE DATA; Schema: plain; Owner: Odd Owner
--

COPY plain.empty (a) FROM stdin;
\.


--
-- Data for Name: left_; Type: TABLE DATA; Schema: plain; Owner: postgres
--

COPY plain.left_ (id, r) FROM stdin;
1	1
2	\N
\.


--
-- Data for Name: new line; Type: TABLE DATA; Schema: plain; Owner: postgres
--

COPY plain."new
line" (a) FROM stdin;
7
\.


--
-- Data for Name: nocols; Type: TABLE DATA; Schema: plain; Owner: postgres
--

COPY plain.nocols  FROM stdin;


\.


--
-- Data for Name: nokey; Type: TABLE DATA; Schema: plain; Owner: postgres
--

COPY plain.nokey (a, b, c, d, e) FROM stdin;
1	\\xc4ca4238a0b923820dcc509a6f75849b	0.14285714285714285	2024-01-01 01:00:00+00	{1,NULL,2}
2	\\xc81e728d9d4c2f636f067f89cc14862c	0.2857142857142857	2024-01-01 02:00:00+00	{2,NULL,2}
3	\\xeccbc87e4b5ce2fe28308fd9f2a7baf3	0.42857142857142855	2024-01-01 03:00:00+00	{3,NULL,2}
4	\\xa87ff679a2f3e71d9181a67b7542122c	0.5714285714285714	2024-01-01 04:00:00+00	{4,NULL,2}
5	\\xe4da3b7fbbce2345d7772b0674a318d5	NaN	2024-01-01 05:00:00+00	{5,NULL,2}
6	\\x1679091c5a880faf6fb5e6087eb1b2dc	0.8571428571428571	2024-01-01 06:00:00+00	{6,NULL,2}
\.


--
-- Data for Name: part_a; Type: TABLE DATA; Schema: plain; Owner: postgres
--

COPY plain.part_a (id, k, v) FROM stdin;
2	a	v2
4	a	v4
6	a	v6
8	a	v8
\.


--
-- Data for Name: part_rest; Type: TABLE DATA; Schema: plain; Owner: postgres
--

COPY plain.part_rest (id, k, v) FROM stdin;
1	b	v1
3	b	v3
5	b	v5
7	b	v7
\.


--
-- Data for Name: right_; Type: TABLE DATA; Schema: plain; Owner: postgres
--

COPY plain.right_ (id, l) FROM stdin;
1	1
2	2
\.


--
-- Data for Name: serials; Type: TABLE DATA; Schema: plain; Owner: postgres
--

COPY plain.serials (id, second, v) FROM stdin;
1	1	c4ca4238a0b923820dcc509a6f75849b
2	2	c81e728d9d4c2f636f067f89cc14862c
3	3	eccbc87e4b5ce2fe28308fd9f2a7baf3
4	4	a87ff679a2f3e71d9181a67b7542122c
5	5	e4da3b7fbbce2345d7772b0674a318d5
6	6	1679091c5a880faf6fb5e6087eb1b2dc
7	7	8f14e45fceea167a5a36dedd4bea2543
8	8	c9f0f895fb98ab9159f51fd0297e236d
9	9	45c48cce2e2d7fbdea1afc51c7c6ad26
10	10	d3d9446802a44259755d38e6d163e820
11	11	6512bd43d9caa6e02c990b0a82652dca
12	12	c20ad4d76fe97759aa27a0c99bff6710
13	13	c51ce410c124a10e0db5e4b97fc2af39
14	14	aab3238922bcc25a6f606eb525ffdc56
15	15	9bf31c7ff062936a96d3c8bd1f8f2ff3
16	16	c74d97b01eae257e44aa9d5bade97baf
17	17	70efdf2ec9b086079795c442636b55fb
18	18	6f4922f45568161a8cdf4ad2299f6d23
19	19	1f0e3dad99908345f7439f8ffabdffc4
20	20	98f13708210194c475687be6106a3b84
\.


--
-- Name: Cust"omer; Type: TABLE_Id_seq; Type: SEQUENCE SET; Schema: Shop.Main; Owner: postgres
--

SELECT pg_catalog.setval('"Shop.Main"."Cust""omer; Type: TABLE_Id_seq"', 10, true);


--
-- Name: free; Type: SEQUENCE SET; Schema: plain; Owner: postgres
--

SELECT pg_catalog.setval('plain.free', 42, true);


--
-- Name: serials_id_seq; Type: SEQUENCE SET; Schema: plain; Owner: postgres
--

SELECT pg_catalog.setval('plain.serials_id_seq', 20, true);


--
-- Name: serials_second_seq; Type: SEQUENCE SET; Schema: plain; Owner: postgres
--

SELECT pg_catalog.setval('plain.serials_second_seq', 20, true);


--
-- Data for Name: BLOBS; Type: BLOBS; Schema: -; Owner: -
--

BEGIN;

SELECT pg_catalog.lo_open('17000', 131072);
SELECT pg_catalog.lowrite(0, '\xdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeefdeadbeef');
SELECT pg_catalog.lo_close(0);

SELECT pg_catalog.lo_open('17001', 131072);
SELECT pg_catalog.lo_close(0);

SELECT pg_catalog.lo_open('17002', 131072);
SELECT pg_catalog.lowrite(0, '\x616263');
SELECT pg_catalog.lo_close(0);

COMMIT;

--
-- Name: Cust"omer; Type: TABLE Cust"omer; Type: TABLE_pkey; Type: CONSTRAINT; Schema: Shop.Main; Owner: postgres
--

ALTER TABLE ONLY "Shop.Main"."Cust""omer; Type: TABLE"
    ADD CONSTRAINT "Cust""omer; Type: TABLE_pkey" PRIMARY KEY ("Id");


--
-- Name: big big_pkey; Type: CONSTRAINT; Schema: plain; Owner: postgres
--

ALTER TABLE ONLY plain.big
    ADD CONSTRAINT big_pkey PRIMARY KEY (id);


--
-- Name: big chk; Type: CHECK CONSTRAINT; Schema: plain; Owner: postgres
--

ALTER TABLE plain.big
    ADD CONSTRAINT chk CHECK ((id > 0)) NOT VALID;


--
-- Name: dot.ted dot.ted_pkey; Type: CONSTRAINT; Schema: plain; Owner: postgres
--

ALTER TABLE ONLY plain."dot.ted"
    ADD CONSTRAINT "dot.ted_pkey" PRIMARY KEY ("a.b");


--
-- Name: left_ left__pkey; Type: CONSTRAINT; Schema: plain; Owner: postgres
--

ALTER TABLE ONLY plain.left_
    ADD CONSTRAINT left__pkey PRIMARY KEY (id);


--
-- Name: part part_pkey; Type: CONSTRAINT; Schema: plain; Owner: postgres
--

ALTER TABLE ONLY plain.part
    ADD CONSTRAINT part_pkey PRIMARY KEY (id, k);


--
-- Name: part_a part_a_pkey; Type: CONSTRAINT; Schema: plain; Owner: postgres
--

ALTER TABLE ONLY plain.part_a
    ADD CONSTRAINT part_a_pkey PRIMARY KEY (id, k);


--
-- Name: part_rest part_rest_pkey; Type: CONSTRAINT; Schema: plain; Owner: postgres
--

ALTER TABLE ONLY plain.part_rest
    ADD CONSTRAINT part_rest_pkey PRIMARY KEY (id, k);


--
-- Name: right_ right__pkey; Type: CONSTRAINT; Schema: plain; Owner: postgres
--

ALTER TABLE ONLY plain.right_
    ADD CONSTRAINT right__pkey PRIMARY KEY (id);


--
-- Name: serials serials_pk; Type: CONSTRAINT; Schema: plain; Owner: postgres
--

ALTER TABLE ONLY plain.serials
    ADD CONSTRAINT serials_pk PRIMARY KEY (id, second);


--
-- Name: CONSTRAINT serials_pk ON serials; Type: COMMENT; Schema: plain; Owner: postgres
--

COMMENT ON CONSTRAINT serials_pk ON plain.serials IS 'pk';


--
-- Name: i dx; Type: INDEX; Schema: Shop.Main; Owner: postgres
--

CREATE INDEX "i dx" ON "Shop.Main"."Cust""omer; Type: TABLE" USING btree (lower("na me")) WHERE ("na me" <> 'x'::text);


--
-- Name: mv_i; Type: INDEX; Schema: plain; Owner: postgres
--

CREATE INDEX mv_i ON plain.mv USING btree (n);


--
-- Name: nokey_u; Type: INDEX; Schema: plain; Owner: postgres
--

CREATE UNIQUE INDEX nokey_u ON plain.nokey USING btree (a) INCLUDE (c);


--
-- Name: INDEX nokey_u; Type: COMMENT; Schema: plain; Owner: postgres
--

COMMENT ON INDEX plain.nokey_u IS 'index';


--
-- Name: part_v; Type: INDEX; Schema: plain; Owner: postgres
--

CREATE INDEX part_v ON ONLY plain.part USING btree (v);


--
-- Name: part_a_v_idx; Type: INDEX; Schema: plain; Owner: postgres
--

CREATE INDEX part_a_v_idx ON plain.part_a USING btree (v);


--
-- Name: part_rest_v_idx; Type: INDEX; Schema: plain; Owner: postgres
--

CREATE INDEX part_rest_v_idx ON plain.part_rest USING btree (v);


--
-- Name: part_a_pkey; Type: INDEX ATTACH; Schema: plain; Owner: postgres
--

ALTER INDEX plain.part_pkey ATTACH PARTITION plain.part_a_pkey;


--
-- Name: part_a_v_idx; Type: INDEX ATTACH; Schema: plain; Owner: postgres
--

ALTER INDEX plain.part_v ATTACH PARTITION plain.part_a_v_idx;


--
-- Name: part_rest_pkey; Type: INDEX ATTACH; Schema: plain; Owner: postgres
--

ALTER INDEX plain.part_pkey ATTACH PARTITION plain.part_rest_pkey;


--
-- Name: part_rest_v_idx; Type: INDEX ATTACH; Schema: plain; Owner: postgres
--

ALTER INDEX plain.part_v ATTACH PARTITION plain.part_rest_v_idx;


--
-- Name: st; Type: STATISTICS; Schema: plain; Owner: postgres
--

CREATE STATISTICS plain.st (ndistinct) ON a, c FROM plain.nokey;


ALTER STATISTICS plain.st OWNER TO postgres;

--
-- Name: nokey r_ignore; Type: RULE; Schema: plain; Owner: postgres
--

CREATE RULE r_ignore AS
    ON DELETE TO plain.nokey DO INSTEAD ( INSERT INTO plain.empty (a)
  VALUES (1);
 DELETE FROM plain.empty;
);


--
-- Name: serials tr on; Type: TRIGGER; Schema: plain; Owner: postgres
--

CREATE TRIGGER "tr on" BEFORE INSERT OR UPDATE OF v ON plain.serials FOR EACH ROW EXECUTE FUNCTION plain.touch();


--
-- Name: TRIGGER "tr on" ON serials; Type: COMMENT; Schema: plain; Owner: postgres
--

COMMENT ON TRIGGER "tr on" ON plain.serials IS 'tr';


--
-- Name: left_ left_r; Type: FK CONSTRAINT; Schema: plain; Owner: postgres
--

ALTER TABLE ONLY plain.left_
    ADD CONSTRAINT left_r FOREIGN KEY (r) REFERENCES plain.right_(id) DEFERRABLE INITIALLY DEFERRED;


--
-- Name: right_ right__l_fkey; Type: FK CONSTRAINT; Schema: plain; Owner: postgres
--

ALTER TABLE ONLY plain.right_
    ADD CONSTRAINT right__l_fkey FOREIGN KEY (l) REFERENCES plain.left_(id);


--
-- Name: nokey; Type: ROW SECURITY; Schema: plain; Owner: postgres
--

ALTER TABLE plain.nokey ENABLE ROW LEVEL SECURITY;

--
-- Name: nokey only; mine; Type: POLICY; Schema: plain; Owner: postgres
--

CREATE POLICY "only; mine" ON plain.nokey FOR SELECT TO "Odd Owner", reader USING ((a > 0));


--
-- Name: TABLE "dot.ted"; Type: ACL; Schema: plain; Owner: postgres
--

GRANT SELECT ON TABLE plain."dot.ted" TO reader;


--
-- Name: TABLE serials; Type: ACL; Schema: plain; Owner: postgres
--

GRANT SELECT ON TABLE plain.serials TO reader;


--
-- Name: TABLE "new line"; Type: ACL; Schema: plain; Owner: postgres
--

GRANT SELECT ON TABLE plain."new
line" TO reader;


--
-- Name: COLUMN nokey.a; Type: ACL; Schema: plain; Owner: postgres
--

GRANT SELECT(a) ON TABLE plain.nokey TO "Odd Owner" WITH GRANT OPTION;


--
-- Name: SEQUENCE serials_id_seq; Type: ACL; Schema: plain; Owner: postgres
--

GRANT USAGE ON SEQUENCE plain.serials_id_seq TO reader;


--
-- Name: DEFAULT PRIVILEGES FOR TABLES; Type: DEFAULT ACL; Schema: plain; Owner: postgres
--

ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA plain GRANT SELECT ON TABLES  TO reader;


--
-- Name: mv; Type: MATERIALIZED VIEW DATA; Schema: plain; Owner: postgres
--

REFRESH MATERIALIZED VIEW plain.mv;


--
-- PostgreSQL database dump complete
--

\unrestrict AEfqzzePDKvOgIH4LfoyN8QiV1yy3rZFx5TQDcIS3O3Y1zYs0x3YHQ078Fli9pj

