-- Who may do what: the lists as they are. A change here is a change of what somebody may do.
-- Tables and views by role: r SELECT, a INSERT, w UPDATE, d DELETE, D TRUNCATE; in brackets, of some columns only.
WITH object AS (
    SELECT c.oid, c.relname, c.relacl, c.relkind
    FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service' JOIN pg_class c ON c.oid = d.objid
    WHERE d.deptype = 'e' AND d.classid = 'pg_class'::regclass AND c.relkind IN ('r', 'v', 'm')),
letter(type, letter) AS (VALUES ('SELECT', 'r'), ('INSERT', 'a'), ('UPDATE', 'w'), ('DELETE', 'd'), ('TRUNCATE', 'D'), ('REFERENCES', 'x'), ('TRIGGER', 't')),
granted AS (
    SELECT o.relname, o.relkind, a.grantee, l.letter, false AS columns FROM object o CROSS JOIN aclexplode(o.relacl) a JOIN letter l ON l.type = a.privilege_type
    UNION SELECT o.relname, o.relkind, a.grantee, l.letter, true
    FROM object o JOIN pg_attribute t ON t.attrelid = o.oid CROSS JOIN aclexplode(t.attacl) a JOIN letter l ON l.type = a.privilege_type)
SELECT g.relname AS object, CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE replace(g.grantee::regrole::text, 'connector_service_', '') END AS role,
    string_agg(CASE WHEN g.columns THEN '(' || g.letter || ')' ELSE g.letter END, '' ORDER BY array_position('{r,a,w,d,D,x,t}', g.letter)) AS may
FROM granted g
GROUP BY 1, 2 ORDER BY g.relname COLLATE "C", 2;
-- MAINTAIN, a privilege since PostgreSQL 17, is the owner's alone.
SELECT c.relname, a.grantee::regrole
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service' JOIN pg_class c ON c.oid = d.objid CROSS JOIN aclexplode(c.relacl) a
WHERE d.deptype = 'e' AND d.classid = 'pg_class'::regclass AND a.privilege_type = 'MAINTAIN' AND a.grantee <> c.relowner;
-- Columns, where not all of them.
SELECT a.grantee::regrole AS role, a.privilege_type, t.attrelid::regclass AS object, string_agg(t.attname, ' ' ORDER BY t.attnum) AS columns
FROM pg_attribute t CROSS JOIN aclexplode(t.attacl) a
WHERE t.attrelid IN (SELECT d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service' WHERE d.deptype = 'e')
GROUP BY a.grantee, a.privilege_type, t.attrelid ORDER BY t.attrelid::regclass::text COLLATE "C", a.grantee::regrole::text, 2;
-- Functions: whoever is not named here, and is not the engine, may not call it.
SELECT p.oid::regprocedure AS function,
    string_agg(CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE replace(a.grantee::regrole::text, 'connector_service_', '') END, ' ' ORDER BY a.grantee::regrole::text) AS may_call
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service' JOIN pg_proc p ON p.oid = d.objid
    LEFT JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a ON a.grantee <> p.proowner AND a.grantee <> 'connector_service_engine'::regrole
WHERE d.deptype = 'e' AND d.classid = 'pg_proc'::regclass
GROUP BY p.oid HAVING count(a.grantee) > 0 ORDER BY p.oid::regprocedure::text COLLATE "C";
-- What acts as the engine.
SELECT p.oid::regprocedure AS acts_as_its_owner, p.proowner::regrole AS owner
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service' JOIN pg_proc p ON p.oid = d.objid
WHERE d.deptype = 'e' AND d.classid = 'pg_proc'::regclass AND p.prosecdef ORDER BY p.oid::regprocedure::text COLLATE "C";
-- What could be led to another's objects: a body that is text, without a search_path. Procedures that COMMIT cannot have one.
SELECT p.oid::regprocedure AS without_search_path
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service' JOIN pg_proc p ON p.oid = d.objid JOIN pg_language l ON l.oid = p.prolang
WHERE d.deptype = 'e' AND d.classid = 'pg_proc'::regclass AND l.lanname IN ('sql', 'plpgsql') AND p.prosqlbody IS NULL
    AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)
ORDER BY p.oid::regprocedure::text COLLATE "C";
-- Row security: on and forced for every table but these, which hold nothing of a tenant's.
SELECT c.relname AS no_row_security
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service' JOIN pg_class c ON c.oid = d.objid
WHERE d.deptype = 'e' AND d.classid = 'pg_class'::regclass AND c.relkind = 'r' AND NOT (c.relrowsecurity AND c.relforcerowsecurity) ORDER BY c.relname COLLATE "C";
SELECT c.relname, p.polname, p.polcmd, p.polroles::regrole[] AS roles, replace(pg_get_expr(p.polqual, p.polrelid), 'public.', '') AS rows, p.polwithcheck
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid ORDER BY c.relname COLLATE "C", p.polname;
SELECT c.relname, c.relkind, c.reloptions, c.relowner::regrole
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'connector_service' JOIN pg_class c ON c.oid = d.objid
WHERE d.deptype = 'e' AND d.classid = 'pg_class'::regclass AND c.relkind IN ('v', 'm') ORDER BY c.relname COLLATE "C";
-- Every foreign key to what is a tenant's names the tenant, too, but these: sync_state has no tenant of its own, and
-- nobody but the engine writes quarantine and sync_requests.
SELECT k.conrelid::regclass AS from_table, k.conname
FROM pg_constraint k
WHERE k.contype = 'f' AND k.confrelid IN (SELECT t.attrelid FROM pg_attribute t WHERE t.attname = 'tenant_id' AND NOT t.attisdropped)
    AND NOT EXISTS (SELECT FROM pg_attribute t WHERE t.attrelid = k.confrelid AND t.attnum = ANY (k.confkey) AND t.attname = 'tenant_id')
ORDER BY k.conrelid::regclass::text COLLATE "C";
-- The roles, and who is a member of them.
SELECT rolname, rolsuper, rolcanlogin, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname LIKE 'connector\_service\_%' ORDER BY 1;
SELECT m.roleid::regrole, m.member::regrole FROM pg_auth_members m WHERE m.roleid::regrole::text LIKE 'connector_service%' OR m.member::regrole::text LIKE 'connector_service%';
