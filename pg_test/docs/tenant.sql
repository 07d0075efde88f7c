-- The tenant that the page makes a token for.
INSERT INTO tenants (tenant_id, name) VALUES ('00000000-0000-4000-8000-000000000001', 'Corner shop');
