-- What the extension owns: a change here is a change of the public surface. The row type of a table or view belongs to
-- the extension by itself since PostgreSQL 17, and says nothing new.
SELECT pg_describe_object(classid, objid, 0) AS object
FROM pg_depend WHERE refobjid = (SELECT oid FROM pg_extension WHERE extname = 'connector_service') AND deptype = 'e'
  AND NOT (classid = 'pg_type'::regclass AND objid IN (
    SELECT unnest(ARRAY[t.oid, t.typarray]) FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid AND c.relkind IN ('r', 'v', 'm')))
ORDER BY pg_describe_object(classid, objid, 0) COLLATE "C";
-- Everything in it is explained.
SELECT pg_describe_object(d.classid, d.objid, 0) AS not_explained
FROM pg_depend d
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'connector_service') AND d.deptype = 'e'
  AND d.classid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_namespace'::regclass)
  AND obj_description(d.objid, d.classid::regclass::name) IS NULL
  AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = d.objid AND c.relkind NOT IN ('r', 'v', 'm'));
SELECT c.relname, a.attname AS not_explained
FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'v', 'm') JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'connector_service') AND d.deptype = 'e' AND d.classid = 'pg_class'::regclass
  AND col_description(c.oid, a.attnum) IS NULL
ORDER BY c.relname COLLATE "C", a.attnum;
-- Every table with data of a user's is dumped.
SELECT c.relname AS not_dumped
FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass AND c.relkind = 'r'
JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service'
WHERE d.deptype = 'e' AND NOT c.oid = ANY (e.extconfig);
-- No constraint has a name that PostgreSQL made up, but NOT NULL, which is a constraint with a name since PostgreSQL 18.
SELECT conname FROM pg_constraint
WHERE contype <> 'n' AND conrelid IN (SELECT d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service' WHERE d.deptype = 'e')
ORDER BY conname COLLATE "C";
