-- The rights of the roles on one database. Run it on each of them as a superuser, before the first
-- migrate and after it: psql -v ON_ERROR_STOP=1 -d app -f docs/roles.sql
--
--   app_owner   owns the tables: for migrate, and for nothing else
--   app         reads and writes rows: for the site, the sync and the other commands
--
-- Neither can log in yet: ALTER ROLE app LOGIN PASSWORD '…'

DO $$
BEGIN
    IF to_regrole('app_owner') IS NULL THEN CREATE ROLE app_owner; END IF;
    IF to_regrole('app') IS NULL THEN CREATE ROLE app; END IF;
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    -- Imports and the sync keep what comes in in temporary tables.
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO app, app_owner', current_database());
END $$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO app_owner;
GRANT USAGE ON SCHEMA public TO app;

-- What is there, and what later migrations make.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app;
ALTER DEFAULT PRIVILEGES FOR ROLE app_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO app;
ALTER DEFAULT PRIVILEGES FOR ROLE app_owner IN SCHEMA public GRANT USAGE ON SEQUENCES TO app;

-- The sync empties a log that has grown past its limit.
DO $$
DECLARE
    log text;
BEGIN
    FOREACH log IN ARRAY ARRAY['users_userchange', 'users_profilechange'] LOOP
        IF to_regclass(log) IS NOT NULL THEN
            EXECUTE format('GRANT TRUNCATE ON %I TO app', log);
        END IF;
    END LOOP;
END $$;
