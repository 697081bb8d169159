/** spire.api.server.svid.v1.SVID: SVIDs for agents by entry, minted SVIDs for operators, CAs for downstream servers. */
import { type Csr, parseCsr } from '../../src/crypto/csr.ts';
import { choosePlace, inTurn, type Place, placeInBatch } from '../../src/crypto/workplace.ts';
import { Fault, quote } from '../../src/errors.ts';
import type { Call, Service } from '../../src/rpc/serve.ts';
import { requireWorkloadId, type SpiffeId, trustDomainId } from '../../src/spiffe/id.ts';
import { idFromWire, idToWire, type WireId } from '../../src/wire/id.ts';
import type { JwtSigner } from '../authority/jwt.ts';
import type { WitSigner } from '../authority/wit.ts';
import type { X509Signer } from '../authority/x509.ts';
import { rememberingRights } from '../entries/authorized.ts';
import { issueJwtSvid, type JwtProfile } from '../issue/jwt.ts';
import { mintProfile } from '../issue/mint.ts';
import type { SigningWorkers } from '../issue/signing-workers.ts';
import type { IssuedToken } from '../issue/token.ts';
import { issueWitSvid, readWitKey } from '../issue/wit.ts';
import { type IssuedX509Svid, issueDownstreamCa, issueX509Svid } from '../issue/x509.ts';
import type { Issuance, StoredEntry } from '../store/store.ts';
import type { Context } from './context.ts';
import { itemStatus } from './status.ts';

interface WitParams {
  entry_id: string;
  public_key: Buffer;
  signing_algorithm: string;
}

export function svidToWire(svid: IssuedX509Svid, id: SpiffeId, hint: string): object {
  return { cert_chain: svid.chain, id: idToWire(id), expires_at: Math.floor(svid.notAfter / 1000), hint };
}

/** Has an SVID recorded, so that it can be revoked by more than its serial. */
export function recordSvid(
  { recorder, clock }: Context,
  { serial, notAfter }: IssuedX509Svid,
  authority: string,
  forWhom: Pick<Issuance, 'spiffeId' | 'entryId' | 'agentId'>,
): void {
  recorder.record({ serial, authority, ...forWhom, issuedAt: clock.now(), expiresAt: notAfter });
}

/** JWTSVID and WITSVID, which have the same fields. */
function tokenToWire(svid: IssuedToken, id: SpiffeId, hint: string): object {
  return { token: svid.token, id: idToWire(id), expires_at: svid.expiresAt, issued_at: svid.issuedAt, hint };
}

export function svidService(context: Context): Service {
  const { trustDomain, options, store, world, authorities, limit, rightsOf, clock, random, log, signing } = context;
  const signer = () => authorities.x509.signer.value;
  const records = options.revocation.record;
  const holds = rememberingRights(world);
  const agentOf = (call: Call): SpiffeId | '' => rightsOf(call).node?.id ?? '';

  function heldEntry(call: Call, entryId: string): StoredEntry | undefined {
    const entry = world.entries.get(entryId);
    const node = rightsOf(call).node;
    return entry && node && holds(node, entry) ? entry : undefined;
  }
  function entryFor(call: Call, entryId: string): StoredEntry {
    const entry = heldEntry(call, entryId);
    if (entry) return entry;
    throw new Fault('thing/missing', 'entry not found or not authorized');
  }

  /** An agent may know an entry from another server before this one has heard of it: the log is read on before it is refused. */
  async function hearOf(call: Call, entryIds: readonly string[]): Promise<void> {
    if (entryIds.every((id) => heldEntry(call, id))) return;
    await world.reach(await store.log.position());
  }

  function jwtSigner(): JwtSigner {
    if (authorities.jwt) return authorities.jwt.signer.value;
    throw new Fault('method/unimplemented', 'JWT functionality is disabled');
  }

  function witSigner(): WitSigner {
    if (authorities.wit) return authorities.wit.signer.value;
    throw new Fault('method/unimplemented', 'WIT-SVIDs are not offered', {
      detail: 'the option witSvids.enabled is not set',
    });
  }

  const newTokenId = (): string => random.bytes(16).toString('base64url');

  function readCsr(csr: Buffer, place: Place): Csr | Promise<Csr> {
    if (csr.length === 0) throw new Fault('input/invalid', 'missing CSR');
    const request = parseCsr(csr, options.experimental);
    const proved = (isSigned: boolean): Csr => {
      if (isSigned) return request;
      throw new Fault('input/invalid', 'the CSR is not signed by the key it holds');
    };
    const isSigned = request.verifyAt(place);
    return isSigned instanceof Promise ? isSigned.then(proved) : proved(isSigned);
  }

  async function mint(csr: Buffer, seconds: number) {
    const place = choosePlace();
    const request = await readCsr(csr, place);
    const ttl = (): number => ttlOf(seconds, options.defaultX509SvidTtl);
    const profile = mintProfile(request, ttl, trustDomain);
    const by = signer();
    const svid = await issueX509Svid(by, profile, clock.now(), random, place);
    return { ...svid, id: profile.id, by };
  }

  async function mintAside(signing: SigningWorkers, csr: Buffer, seconds: number) {
    const by = signer();
    const ttl = ttlOf(seconds, options.defaultX509SvidTtl);
    const svid = await signing.x509(by, { csr, entry: undefined, ttl, now: clock.now() });
    return svid && { ...svid, by };
  }

  async function issueAside(signing: SigningWorkers, entry: StoredEntry, csr: Buffer) {
    const by = signer();
    const { spiffeId: id, dnsNames } = entry;
    const ttl = ttlOf(entry.x509SvidTtl, options.defaultX509SvidTtl);
    const svid = await signing.x509(by, { csr, entry: { id, dnsNames }, ttl, now: clock.now() });
    return svid && { ...svid, by };
  }

  function handOut(call: Call, { id: entryId, spiffeId, hint }: StoredEntry, svid: IssuedX509Svid, by: X509Signer) {
    if (records) recordSvid(context, svid, by.authorityId, { spiffeId, entryId, agentId: agentOf(call) });
    return { svid: svidToWire(svid, spiffeId, hint) };
  }

  async function issueJwt(by: JwtSigner, profile: JwtProfile): Promise<IssuedToken> {
    const aside = signing?.jwt(by, profile, clock.now());
    return (aside && (await aside)) ?? issueJwtSvid(by, profile, clock.now());
  }

  const methods = {
    async MintX509SVID({ csr, ttl }: { csr: Buffer; ttl: number }) {
      const aside = signing !== undefined && ttl >= 0 ? await mintAside(signing, csr, ttl) : undefined;
      const svid = aside ?? (await mint(csr, ttl));
      const { id, by } = svid;
      if (records) recordSvid(context, svid, by.authorityId, { spiffeId: id, entryId: '', agentId: '' });
      log.info({ id, serial: svid.serial }, 'X509-SVID minted');
      return { svid: svidToWire(svid, id, '') };
    },

    async MintJWTSVID({ id: wireId, audience, ttl }: { id: WireId | null; audience: string[]; ttl: number }) {
      const signingKey = jwtSigner();
      const id = requireWorkloadId(idFromWire(wireId, 'SPIFFE ID'), trustDomain, 'SPIFFE ID');
      const profile = {
        id,
        audience,
        ttl: ttlOf(ttl, options.defaultJwtSvidTtl),
        issuer: options.jwtIssuer,
        tokenId: undefined,
      };
      const svid = await issueJwt(signingKey, profile);
      return { svid: tokenToWire(svid, id, '') };
    },

    async MintWITSVID(request: { id: WireId | null; public_key: Buffer; ttl: number; signing_algorithm: string }) {
      const signingKey = witSigner();
      const id = requireWorkloadId(idFromWire(request.id, 'SPIFFE ID'), trustDomain, 'SPIFFE ID');
      const profile = {
        id,
        key: readWitKey(request.public_key, request.signing_algorithm),
        ttl: ttlOf(request.ttl, options.witSvids.ttl),
        issuer: options.witSvids.issuer,
        tokenId: newTokenId(),
      };
      const svid = await issueWitSvid(signingKey, profile, clock.now());
      log.info({ id, jti: profile.tokenId }, 'WIT-SVID minted');
      return { svid: tokenToWire(svid, id, '') };
    },

    async BatchNewX509SVID({ params }: { params: { entry_id: string; csr: Buffer }[] }, call: Call) {
      if (params.length === 0) throw new Fault('input/invalid', 'missing parameters');
      await limit(call, 'csr', params.length);
      await hearOf(
        call,
        params.map(({ entry_id }) => entry_id),
      );
      const issueOne = async ({ entry_id, csr }: { entry_id: string; csr: Buffer }) => {
        if (entry_id === '') throw new Fault('input/invalid', 'missing entry ID');
        let entry = entryFor(call, entry_id);
        if (signing !== undefined) {
          const aside = await issueAside(signing, entry, csr);
          // Looked up again: the entry may have changed or gone meanwhile. Then what was issued is given to nobody.
          const now = entryFor(call, entry_id);
          if (aside !== undefined && now === entry) return handOut(call, entry, aside, aside.by);
          entry = now;
        }
        const request = readCsr(csr, placeInBatch);
        const { spki, key } = request instanceof Promise ? await request : request;
        // Looked up again: the entry may have changed or gone while its request was checked.
        if (request instanceof Promise) entry = entryFor(call, entry_id);
        const ttl = ttlOf(entry.x509SvidTtl, options.defaultX509SvidTtl);
        const profile = { id: entry.spiffeId, spki, keyBits: key.keyBits, dnsNames: entry.dnsNames, ttl };
        const by = signer();
        return handOut(call, entry, await issueX509Svid(by, profile, clock.now(), random, placeInBatch), by);
      };
      return { results: await Promise.all(params.map((one) => inTurn(() => itemStatus(log, () => issueOne(one))))) };
    },

    async NewJWTSVID({ entry_id, audience }: { entry_id: string; audience: string[] }, call: Call) {
      await limit(call, 'jwt');
      const signingKey = jwtSigner();
      if (entry_id === '') throw new Fault('input/invalid', 'missing entry ID');
      await hearOf(call, [entry_id]);
      const entry = entryFor(call, entry_id);
      const profile = {
        id: entry.spiffeId,
        audience,
        ttl: ttlOf(entry.jwtSvidTtl, options.defaultJwtSvidTtl),
        issuer: options.jwtIssuer,
        tokenId: entry.jwtSvidIncludeJti ? newTokenId() : undefined,
      };
      const svid = await issueJwt(signingKey, profile);
      return { svid: tokenToWire(svid, entry.spiffeId, entry.hint) };
    },

    async BatchNewWITSVID({ params }: { params: WitParams[] }, call: Call) {
      witSigner();
      if (params.length === 0) throw new Fault('input/invalid', 'missing parameters');
      await limit(call, 'wit', params.length);
      await hearOf(
        call,
        params.map(({ entry_id }) => entry_id),
      );
      const issueOne = async ({ entry_id, public_key, signing_algorithm }: WitParams) => {
        if (entry_id === '') throw new Fault('input/invalid', 'missing entry ID');
        const entry = entryFor(call, entry_id);
        const profile = {
          id: entry.spiffeId,
          key: readWitKey(public_key, signing_algorithm),
          ttl: ttlOf(entry.x509SvidTtl, options.witSvids.ttl),
          issuer: options.witSvids.issuer,
          tokenId: newTokenId(),
        };
        const svid = await issueWitSvid(witSigner(), profile, clock.now(), placeInBatch);
        return { svid: tokenToWire(svid, entry.spiffeId, entry.hint) };
      };
      return { results: await Promise.all(params.map((one) => inTurn(() => itemStatus(log, () => issueOne(one))))) };
    },

    async NewDownstreamX509CA({ csr, preferred_ttl }: { csr: Buffer; preferred_ttl: number }, call: Call) {
      await limit(call, 'csr');
      const request = await readCsr(csr, 'here');
      const [uri, ...others] = request.uris;
      if (uri !== trustDomainId(trustDomain) || others.length > 0) {
        throw new Fault('input/invalid', `the CSR must hold ${quote(trustDomainId(trustDomain))} as its only URI SAN`);
      }
      const asked = {
        trustDomain,
        spki: request.spki,
        ttl: ttlOf(preferred_ttl, options.caTtl),
      };
      const ca = await issueDownstreamCa(signer(), asked, clock.now(), random);
      log.info({ caller: rightsOf(call).id, serial: ca.serial }, 'downstream authority issued');
      const bundle = world.bundles.get(trustDomain);
      return {
        ca_cert_chain: ca.chain,
        x509_authorities: bundle?.x509Authorities.map(({ certificate }) => certificate) ?? [],
      };
    },
  };
  return { name: 'spire.api.server.svid.v1.SVID', methods };
}

/** @param seconds 0 means the default @param fallback milliseconds. Gives milliseconds. */
function ttlOf(seconds: number, fallback: number): number {
  if (seconds < 0)
    throw new Fault('input/invalid', `TTL ${quote(seconds)} is not valid: expected 0 or a positive number of seconds`);
  return seconds === 0 ? fallback : seconds * 1000;
}
