/**
 * TLS as every endpoint offers it: the options, the files that they name, faults of several options together, and the
 * faults of a handshake.
 */
import { readFile } from 'node:fs/promises'
import { lineOf, Refused } from '../core/errors'
import { opt, type Option } from './define'
import { kebab } from './names'

type Aliases = readonly string[]
export interface TlsDeclarations {
  readonly ca: Option<string>
  readonly cert: Option<string>
  readonly certKey: Option<string>
  readonly certPassword: Option<string>
  readonly serverName: Option<string>
  readonly tlsInsecure: Option<boolean> & { readonly default: boolean }
}

/**
 * Declares the options. `aliases` are the names that other clients of the same system use.
 * @param peer the other side as help texts name it: `server`
 */
export function tlsOptions(
  peer: string,
  aliases: {
    readonly ca?: Aliases
    readonly cert?: Aliases
    readonly certKey?: Aliases
    readonly certPassword?: Aliases
  },
): TlsDeclarations {
  return {
    ca: opt.string({
      doc: "Names the certificates to trust instead of the system's: a PEM file, or its content.",
      aliases: aliases.ca ?? [],
    }),
    cert: opt.string({
      doc: 'Names the client certificate: a PEM file, or its content. It needs its private key as well (cert-key=).',
      aliases: aliases.cert ?? [],
    }),
    certKey: opt.string({
      doc: 'Names the private key of the client certificate: a PEM file, or its content, which is kept secret.',
      aliases: aliases.certKey ?? [],
      privateKey: true,
    }),
    certPassword: opt.string({
      doc: 'Sets the passphrase of the private key of the client certificate.',
      aliases: aliases.certPassword ?? [],
      secret: true,
    }),
    serverName: opt.string({
      doc: `Sets the name to ask for in the TLS handshake and to find in the certificate of the ${peer}.`,
      defaultText: 'the host that is connected to',
    }),
    tlsInsecure: opt.flag({
      doc: `Accepts any certificate of the ${peer}. Anyone between can then read and change everything.`,
      default: false,
      defaultText: 'false',
    }),
  }
}

/** The values of those options. */
export interface TlsOptions {
  readonly ca: string | undefined
  readonly cert: string | undefined
  readonly certKey: string | undefined
  readonly certPassword: string | undefined
  readonly serverName: string | undefined
  readonly tlsInsecure: boolean
}

/** These settings go to `tls.connect` of Node. Certificates and keys are PEM. */
export interface TlsSettings {
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly passphrase?: string
  readonly servername?: string
  readonly rejectUnauthorized: boolean
}

/**
 * Reads the files that the options name. Every opening has to call it, because certificates are renewed.
 * @throws Refused if a file cannot be read
 */
export async function readTls(options: TlsOptions): Promise<TlsSettings> {
  const [ca, cert, key] = await Promise.all([
    readPem('ca', options.ca),
    readPem('cert', options.cert),
    readPem('certKey', options.certKey),
  ])
  return {
    rejectUnauthorized: !options.tlsInsecure,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(options.certPassword === undefined ? {} : { passphrase: options.certPassword }),
    ...(options.serverName === undefined ? {} : { servername: options.serverName }),
  }
}

async function readPem(name: 'ca' | 'cert' | 'certKey', given: string | undefined): Promise<string | undefined> {
  if (given === undefined || given.includes('-----BEGIN')) return given
  try {
    return await readFile(given, 'utf8')
  } catch (error) {
    // The system's message quotes the value, which may be a key without its first line.
    const why = name === 'certKey' ? ((error as NodeJS.ErrnoException).code ?? 'unknown') : lineOf(error)
    throw new Refused(`the file of ${kebab(name)}= cannot be read: ${why}`, name === 'certKey' ? {} : { cause: error })
  }
}

/**
 * Checks the options together, and returns a line for each fault.
 * @param plain the scheme without TLS where it is the one that was given, and the scheme to write instead
 */
export function tlsOptionFaults(
  options: TlsOptions,
  plain: { readonly scheme: string; readonly instead: string } | undefined,
): readonly string[] {
  const faults: string[] = []
  if ((options.cert === undefined) !== (options.certKey === undefined))
    faults.push(
      `a client certificate is cert= and cert-key=: ${options.cert === undefined ? 'cert' : 'cert-key'}= is missing`,
    )
  if (plain === undefined) return faults
  const used = (['ca', 'cert', 'certKey', 'certPassword', 'serverName'] as const).filter(
    (name) => options[name] !== undefined,
  )
  for (const name of [...used, ...(options.tlsInsecure ? ['tlsInsecure'] : [])].slice(0, 1))
    faults.push(`${kebab(name)} is for TLS: write ${plain.instead}:// instead of ${plain.scheme}://`)
  return faults
}

/** Node gives these names to verification errors of OpenSSL (node/src/crypto/crypto_common.cc, X509ErrorCode). */
const UNTRUSTED = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'CERT_UNTRUSTED',
  'CERT_REJECTED',
  'CERT_SIGNATURE_FAILURE',
  'CERT_CHAIN_TOO_LONG',
  'PATH_LENGTH_EXCEEDED',
  'INVALID_CA',
  'INVALID_PURPOSE',
  'UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY',
])
const OUTSIDE_VALIDITY = new Set(['CERT_HAS_EXPIRED', 'CERT_NOT_YET_VALID', 'CRL_HAS_EXPIRED', 'CRL_NOT_YET_VALID'])
const OTHER_NAME = new Set(['ERR_TLS_CERT_ALTNAME_INVALID', 'HOSTNAME_MISMATCH'])

/**
 * Returns the fault of a TLS handshake, or undefined if the error is not one. No retry alone helps with any of them.
 * @param code the `code` of Node's error
 * @param at HOST:PORT
 * @param schemes how the URI begins with TLS and without
 */
export function tlsFault(
  code: string,
  at: string,
  schemes: { readonly secure: string; readonly plain: string },
  cause: unknown,
): Refused | undefined {
  const refused = (text: string): Refused => new Refused(text, { cause })
  if (UNTRUSTED.has(code))
    return refused(`the certificate of ${at} is not trusted (${code}): name the authority that signed it with ca=FILE`)
  if (OUTSIDE_VALIDITY.has(code))
    return refused(
      `the certificate of ${at} is out of its time (${code}): it has to be renewed there, or the clock of this machine is wrong`,
    )
  if (OTHER_NAME.has(code))
    return refused(
      `the certificate of ${at} is for another name: use a name that is in it, or give it with server-name=`,
    )
  if (code === 'CERT_REVOKED') return refused(`the certificate of ${at} is revoked`)
  if (/^(CERT|CRL)_|^ERR_TLS_CERT|^UNABLE_TO_/.test(code))
    return refused(`the certificate of ${at} cannot be verified (${code}): ca=FILE names the authority that signed it`)
  if (/^ERR_SSL_.*(ALERT|CERTIFICATE_REQUIRED)/.test(code))
    return refused(
      `${at} ended the TLS handshake (${code}): it may want a client certificate, cert= and cert-key=, or another one`,
    )
  if (code === 'EPROTO' || code.startsWith('ERR_SSL_'))
    return refused(`${at} does not speak TLS (${code}): is ${schemes.plain}:// meant instead of ${schemes.secure}://?`)
  if (code.startsWith('ERR_OSSL') || code === 'ERR_CRYPTO_OPERATION_FAILED')
    return refused(
      `ca=, cert= or cert-key= is not usable (${code}): PEM is expected, the key belongs to the certificate, and cert-password= is its passphrase`,
    )
  return undefined
}
