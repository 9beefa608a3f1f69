/** The lint configuration, held against what it is there to find: one run over a small project with a file for each. */
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'

const ROOT = join(__dirname, '../..')
const found = new Map<string, readonly (string | null)[]>()

const broken = [
  [
    '@typescript-eslint/no-floating-promises',
    'export function f(p: Promise<void>): void { p.then(() => undefined) }\n',
  ],
  [
    '@typescript-eslint/no-misused-promises',
    'export function f(p: () => Promise<void>): void { [1].forEach(async () => { await p() }) }\n',
  ],
  ['@typescript-eslint/no-explicit-any', 'export const f = (x: any): unknown => x\n'],
  ['@typescript-eslint/no-unsafe-member-access', 'export const f = (x: string): unknown => JSON.parse(x).y\n'],
  [
    '@typescript-eslint/switch-exhaustiveness-check',
    "export function f(x: 'a' | 'b'): number { switch (x) { case 'a': return 1 } return 2 }\n",
  ],
  ['@typescript-eslint/explicit-function-return-type', 'export function f(x: number) { return x }\n'],
  ['@typescript-eslint/consistent-type-imports', "import { Stats } from 'node:fs'\nexport type X = Stats\n"],
  ['no-restricted-syntax', 'export enum X { a }\n'],
  ['no-restricted-syntax', 'export let state = 1\nexport function f(): void { state++ }\n'],
  ['eqeqeq', 'export const f = (x: number): boolean => x == 1\n'],
] as const
const passing =
  '/** Twice. */\nexport async function twice(x: Promise<number>): Promise<number> { return 2 * await x }\n'

beforeAll(() => {
  const folder = mkdtempSync(join(tmpdir(), 'manifold-lint-'))
  try {
    for (const file of ['tsconfig.json', 'tsconfig.test.json', 'package.json', 'eslint.config.js'])
      copyFileSync(join(ROOT, file), join(folder, file))
    symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'))
    mkdirSync(join(folder, 'src'))
    broken.forEach(([, text], index) => {
      writeFileSync(join(folder, `src/broken-${index}.ts`), text)
    })
    writeFileSync(join(folder, 'src/passing.ts'), passing)
    const { stdout, stderr } = spawnSync(
      process.execPath,
      [join(ROOT, 'node_modules/eslint/bin/eslint.js'), '-f', 'json', 'src'],
      { cwd: folder, encoding: 'utf8' },
    )
    if (stdout === '') throw new Error(stderr)
    for (const { filePath, messages } of JSON.parse(stdout) as {
      filePath: string
      messages: { ruleId: string | null }[]
    }[])
      found.set(
        basename(filePath),
        messages.map(({ ruleId }) => ruleId),
      )
  } finally {
    rmSync(folder, { recursive: true })
  }
}, 60_000)

test.each(broken.map(([rule], index) => [rule, index] as const))('%s is found (%#)', (rule, index) => {
  expect(found.get(`broken-${index}.ts`)).toContain(rule)
})
test('text in the style of the house passes', () => {
  expect(found.get('passing.ts')).toEqual([])
})
