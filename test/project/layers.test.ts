/** The layer table of .dependency-cruiser.cjs, held against small trees that break it. */
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

const ROOT = join(__dirname, '../..')
let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-layers-'))
  for (const file of ['tsconfig.json', 'package.json', '.dependency-cruiser.cjs'])
    copyFileSync(join(ROOT, file), join(folder, file))
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
})
afterEach(() => {
  rmSync(folder, { recursive: true })
})

/** `rule: from → to` of each violation, in a tree of these files. */
function violations(files: Readonly<Record<string, string>>): readonly string[] {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, 'src', name)), { recursive: true })
    writeFileSync(join(folder, 'src', name), text)
  }
  const { stdout, stderr } = spawnSync(
    process.execPath,
    [
      join(ROOT, 'node_modules/dependency-cruiser/bin/dependency-cruiser.mjs'),
      '--config',
      '.dependency-cruiser.cjs',
      '--output-type',
      'json',
      'src',
    ],
    { cwd: folder, encoding: 'utf8' },
  )
  if (stderr !== '') throw new Error(stderr)
  const report = JSON.parse(stdout) as {
    summary: { violations: { rule: { name: string }; from: string; to: string }[] }
  }
  return report.summary.violations.map(
    ({ rule, from, to }) =>
      `${rule.name}: ${from.replace('src/', '')} → ${to.replace('src/', '').replace(/^.*node_modules\/((@[^/]+\/)?[^/]+).*/, '$1')}`,
  )
}

const leaf = 'export const x = 1\n'
const imports = (...from: readonly string[]): string =>
  `${from.map((each, index) => `import { x as x${index} } from '${each}'`).join('\n')}\nexport const x = [${from.map((_, index) => `x${index}`).join(', ')}]\n`

test('a tree that keeps the table has no violation', () => {
  expect(
    violations({
      'kit/a.ts': imports('node:fs'),
      'core/errors.ts': imports('../kit/a'),
      'core/contract.ts': leaf,
      'core/b.ts': imports('./errors'),
      'options/o.ts': `import type { x } from '../core/contract'\n${imports('../core/errors', '../kit/a')}export type Y = typeof x\n`,
      'codec/c.ts': imports('../core/b', '../kit/a'),
      'spool/s.ts': imports('../core/b'),
      'state/s.ts': imports('../core/b', '../kit/a'),
      'endpoints/s3/client.ts': "import { S3Client } from '@aws-sdk/client-s3'\nexport const x = S3Client\n",
      'endpoints/s3/sink.ts': `import type { S3Client } from '@aws-sdk/client-s3'\n${imports('../../codec/c', '../../core/b', '../../options/o', '../../kit/a')}export const load = async (): Promise<S3Client> => new (await import('./client')).x()\n`,
      'endpoints/s3/index.ts': "export const x = async (): Promise<unknown> => await import('./sink')\n",
      'endpoints/registry.ts': imports('./s3'),
      'plan/p.ts': imports('../endpoints/registry', '../spool/s', '../state/s'),
      'index.ts': imports('./plan/p'),
      'cli/main.ts':
        "import { Command } from 'commander'\nimport { x } from '../plan/p'\nexport const y = [Command, x]\n",
    }),
  ).toEqual([])
})

const websocket = "import { WebSocket } from 'ws'\nexport const x = WebSocket\n"

/** Each in files of its own, so that one run over one tree finds them all. */
const broken: readonly (readonly [violation: string, files: Readonly<Record<string, string>>])[] = [
  ['kit-imports: kit/a.ts → core/b.ts', { 'kit/a.ts': imports('../core/b'), 'core/b.ts': leaf }],
  ['kit-packages: kit/w.ts → ws', { 'kit/w.ts': "import { WebSocket } from 'ws'\nexport const x = WebSocket\n" }],
  [
    'core-imports: core/o.ts → options/leaf.ts',
    { 'core/o.ts': "import type { x } from '../options/leaf'\nexport type Y = typeof x\n", 'options/leaf.ts': leaf },
  ],
  ['core-packages: core/p.ts → pino', { 'core/p.ts': "import pino from 'pino'\nexport const x = pino\n" }],
  [
    'options-imports: options/b.ts → core/batch.ts',
    { 'options/b.ts': imports('../core/batch'), 'core/batch.ts': leaf },
  ],
  [
    'options-contract: options/c.ts → core/contract.ts',
    { 'options/c.ts': imports('../core/contract'), 'core/contract.ts': leaf },
  ],
  [
    'codec-imports: codec/c.ts → options/leaf.ts',
    { 'codec/c.ts': imports('../options/leaf'), 'options/leaf.ts': leaf },
  ],
  ['spool-imports: spool/s.ts → state/leaf.ts', { 'spool/s.ts': imports('../state/leaf'), 'state/leaf.ts': leaf }],
  [
    'state-imports: state/s.ts → endpoints/x/index.ts',
    { 'state/s.ts': imports('../endpoints/x'), 'endpoints/x/index.ts': leaf },
  ],
  [
    'endpoints-imports: endpoints/x/spool.ts → spool/leaf.ts',
    { 'endpoints/x/spool.ts': imports('../../spool/leaf'), 'spool/leaf.ts': leaf },
  ],
  [
    'endpoints-apart: endpoints/x/y.ts → endpoints/y/client.ts',
    { 'endpoints/x/y.ts': imports('../y/client'), 'endpoints/y/client.ts': leaf },
  ],
  [
    'endpoints-registry: endpoints/registry.ts → endpoints/x/sink.ts',
    { 'endpoints/registry.ts': imports('./x/sink'), 'endpoints/x/sink.ts': leaf },
  ],
  [
    'vendor-in-client: endpoints/x/ws.ts → ws',
    { 'endpoints/x/ws.ts': "import { WebSocket } from 'ws'\nexport const x = WebSocket\n" },
  ],
  [
    'plan-importers: endpoints/x/plan.ts → plan/leaf.ts',
    { 'endpoints/x/plan.ts': imports('../../plan/leaf'), 'plan/leaf.ts': leaf },
  ],
  ['index-imports: index.ts → cli/progress.ts', { 'index.ts': imports('./cli/progress'), 'cli/progress.ts': leaf }],
  ['no-one-imports-cli: plan/c.ts → cli/leaf.ts', { 'plan/c.ts': imports('../cli/leaf'), 'cli/leaf.ts': leaf }],
  ['no-cycles: core/a.ts → core/b.ts', { 'core/a.ts': imports('./b'), 'core/b.ts': imports('./a') }],
  [
    'declared-packages: cli/a.ts → fast-check',
    { 'cli/a.ts': "import { assert } from 'fast-check'\nexport const x = assert\n" },
  ],
  ['codec-packages: codec/p.ts → ws', { 'codec/p.ts': websocket }],
  ['spool-packages: spool/p.ts → ws', { 'spool/p.ts': websocket }],
  ['state-packages: state/p.ts → ws', { 'state/p.ts': websocket }],
  ['options-packages: options/p.ts → ws', { 'options/p.ts': websocket }],
  ['plan-packages: plan/p.ts → ws', { 'plan/p.ts': websocket }],
  ['plan-imports: plan/i.ts → index.ts', { 'plan/i.ts': imports('..') }],
  ['aws-imports: aws/c.ts → codec/leaf.ts', { 'aws/c.ts': imports('../codec/leaf'), 'codec/leaf.ts': leaf }],
  ['aws-packages: aws/p.ts → ws', { 'aws/p.ts': websocket }],
  ['aws-importers: plan/aws.ts → aws/leaf.ts', { 'plan/aws.ts': imports('../aws/leaf'), 'aws/leaf.ts': leaf }],
  [
    'src-only: kit/s.ts → scripts/leaf.js',
    { 'kit/s.ts': imports('../../scripts/leaf'), '../scripts/leaf.js': 'exports.x = 1\n' },
  ],
  ['resolvable: cli/m.ts → ./missing', { 'cli/m.ts': imports('./missing') }],
] as const

test('every rule catches what breaks it', () => {
  const found = violations(Object.assign({}, ...broken.map(([, files]) => files)) as Record<string, string>)
  for (const [violation] of broken) expect(found).toContain(violation)
  // And no rule is there that nothing has shown to work.
  const { forbidden } = jest.requireActual<{ forbidden: { name: string }[] }>(join(ROOT, '.dependency-cruiser.cjs'))
  const shown = new Set(broken.map(([violation]) => violation.split(':')[0]))
  expect(forbidden.map(({ name }) => name).filter((name) => !shown.has(name))).toEqual([])
})
