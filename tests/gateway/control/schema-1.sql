BEGIN TRANSACTION;
CREATE TABLE adapter_pins (
	version VARCHAR(160) NOT NULL, 
	PRIMARY KEY (version), 
	FOREIGN KEY(version) REFERENCES adapter_versions (name) ON DELETE CASCADE
);
INSERT INTO "adapter_pins" VALUES('s@cccccccccccc');
CREATE TABLE adapter_versions (
	name VARCHAR(160) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	model VARCHAR(128) NOT NULL, 
	base_digest VARCHAR(80) NOT NULL, 
	rank INTEGER NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	who TEXT NOT NULL, 
	created FLOAT NOT NULL, 
	has_served BOOLEAN NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "adapter_versions" VALUES('s@aaaaaaaaaaaa','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','demo','sha256:babababababababababababababababababababababababababababababababa',8,400000,'ann@host from 127.0.0.1',1790000000.25,1);
INSERT INTO "adapter_versions" VALUES('s@bbbbbbbbbbbb','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','demo','sha256:babababababababababababababababababababababababababababababababa',8,400001,'ann@host from 127.0.0.1',1790000001.25,1);
INSERT INTO "adapter_versions" VALUES('s@cccccccccccc','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','demo','sha256:babababababababababababababababababababababababababababababababa',8,400002,'ann@host from 127.0.0.1',1790000002.25,1);
CREATE TABLE alias_changes (
	id INTEGER NOT NULL, 
	alias VARCHAR(128) NOT NULL, 
	model VARCHAR(128) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	"before" TEXT NOT NULL, 
	"after" TEXT NOT NULL, 
	who TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	at FLOAT NOT NULL, 
	gate VARCHAR(32) NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "alias_changes" VALUES(1,'s','demo','flip','[]','[["s@aaaaaaaaaaaa", 1]]','ann','published',1790000101.5,'ungated');
INSERT INTO "alias_changes" VALUES(2,'s','demo','split','[["s@aaaaaaaaaaaa", 1]]','[["s@aaaaaaaaaaaa", 90], ["s@bbbbbbbbbbbb", 10]]','ann','canary',1790000102.5,'ungated');
INSERT INTO "alias_changes" VALUES(3,'s','demo','rollback','[["s@aaaaaaaaaaaa", 90], ["s@bbbbbbbbbbbb", 10]]','[["s@aaaaaaaaaaaa", 1]]','bob','',1790000103.0,'ungated');
INSERT INTO "alias_changes" VALUES(4,'s','demo','flip','[["s@aaaaaaaaaaaa", 1]]','[["s@bbbbbbbbbbbb", 1]]','ann','',1790000103.5,'ungated');
INSERT INTO "alias_changes" VALUES(5,'s','demo','rollback','[["s@bbbbbbbbbbbb", 1]]','[["s@aaaaaaaaaaaa", 1]]','bob','',1790000105.5,'ungated');
INSERT INTO "alias_changes" VALUES(6,'other/name','demo','force','[]','[["s@cccccccccccc", 1]]','ann','demo day; it''s fine',1790000106.5,'forced');
INSERT INTO "alias_changes" VALUES(7,'gone','demo','flip','[]','[["s@cccccccccccc", 1]]','ann','',1790000107.5,'');
INSERT INTO "alias_changes" VALUES(8,'gone','demo','drop','[["s@cccccccccccc", 1]]','[]','ann','',1790000110.5,'');
CREATE TABLE alias_shares (
	alias VARCHAR(128) NOT NULL, 
	slot INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	version VARCHAR(160) NOT NULL, 
	weight INTEGER NOT NULL, 
	PRIMARY KEY (alias, slot, position), 
	FOREIGN KEY(alias) REFERENCES aliases (name) ON DELETE CASCADE, 
	FOREIGN KEY(version) REFERENCES adapter_versions (name)
);
INSERT INTO "alias_shares" VALUES('s',0,0,'s@aaaaaaaaaaaa',1);
INSERT INTO "alias_shares" VALUES('s',1,0,'s@bbbbbbbbbbbb',1);
INSERT INTO "alias_shares" VALUES('other/name',0,0,'s@cccccccccccc',1);
CREATE TABLE aliases (
	name VARCHAR(128) NOT NULL, 
	model VARCHAR(128) NOT NULL, 
	gate VARCHAR(32) NOT NULL, 
	previous_gate VARCHAR(32) NOT NULL, 
	created FLOAT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "aliases" VALUES('s','demo','ungated','ungated',1790000101.5);
INSERT INTO "aliases" VALUES('other/name','demo','forced','',1790000106.5);
CREATE TABLE meta (
	"key" VARCHAR(64) NOT NULL, 
	value TEXT, 
	PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('schema','1');
CREATE INDEX ix_alias_changes_alias ON alias_changes (alias);
COMMIT;
