/**
 * Redirections of single requests. S3 answers 307 for a bucket so young that its name still leads elsewhere (Amazon S3
 * User Guide, "Making requests by using the REST API: request redirection"); the request goes to the place it names,
 * signed anew, and later ones to the old place again. Pure.
 */
import type { Redirection } from './errors'

/** Of a request, before it is signed. */
export interface SdkRequest {
  protocol: string
  hostname: string
  port?: number | undefined
  path: string
  query: Record<string, string | readonly string[] | null>
  headers: Record<string, string>
}

/** A request is passed on so often at the most. */
export const MAX_REDIRECTIONS = 3

/** The same request, sent where the answer points; undefined where that is no place of the same object. */
export function redirectedRequest(
  request: SdkRequest,
  { location, endpoint }: Redirection,
  bucket: string,
): SdkRequest | undefined {
  const from = `${request.protocol}//${request.hostname}${request.port === undefined ? '' : `:${request.port}`}${request.path}`
  const named = location ?? (endpoint === undefined ? undefined : `//${endpoint}${request.path}`)
  if (named === undefined || !URL.canParse(named, from)) return undefined
  const to = new URL(named, from)
  if (to.protocol !== request.protocol && to.protocol !== 'https:') return undefined
  if (to.href === new URL(from).href || !isSameObject(request, to, bucket)) return undefined
  const query = { ...request.query }
  for (const [name, value] of to.searchParams) query[name] ??= value
  return {
    ...request,
    protocol: to.protocol,
    hostname: to.hostname,
    port: to.port === '' ? undefined : Number(to.port),
    path: to.pathname,
    query,
    headers: { ...request.headers, host: to.host },
  }
}

/** A bucket stands in the host's name or at the beginning of the path. */
function isSameObject({ hostname, path }: SdkRequest, to: URL, bucket: string): boolean {
  const inPath = `/${bucket}`
  const keyPath = hostname.startsWith(`${bucket}.`) ? path : path.startsWith(inPath) ? path.slice(inPath.length) : path
  const target = decodePath(to.pathname)
  return (
    target === decodePath(`${inPath}${keyPath}`) ||
    (to.hostname.startsWith(`${bucket}.`) && target === decodePath(keyPath === '' ? '/' : keyPath))
  )
}

function decodePath(path: string): string {
  try {
    return decodeURIComponent(path)
  } catch {
    return path
  }
}
