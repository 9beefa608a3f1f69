import { readFileSync } from 'node:fs'
import { join } from 'node:path'

// The bundler replaces this, because the bundle has no package.json beside it.
declare const MANIFOLD_VERSION: string | undefined

export function version(): string {
  if (typeof MANIFOLD_VERSION === 'string') return MANIFOLD_VERSION
  return (JSON.parse(readFileSync(join(__dirname, '../../package.json'), 'utf8')) as { version: string }).version
}
