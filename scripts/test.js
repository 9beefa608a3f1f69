/**
 * `npm test`: sets up, brings the servers this machine can have, runs jest and closes with one line counted from jest's
 * own report: `N passed, N failed, N skipped`. Arguments go to jest (`npm test -- test/spool`).
 *
 * MANIFOLD_REQUIRE_SERVICES=1: a service that cannot be had is a failure (`.ci/run`). MANIFOLD_TEST_REPORT=FILE: the
 * closing line goes there too.
 */
'use strict'
const { spawn } = require('child_process')
const fs = require('fs')
const os = require('os')
const path = require('path')
const kafka = require('./services/kafka')
const { ready, root } = require('./setup')

const args = process.argv.slice(2)
const demanded = process.env.MANIFOLD_REQUIRE_SERVICES === '1'

function run(file, given) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [file, ...given], { cwd: root, stdio: 'inherit' })
    const pass = (signal) => {
      child.kill(signal)
    }
    process.on('SIGTERM', pass)
    child.on('error', reject)
    child.on('exit', (code, signal) => {
      process.removeListener('SIGTERM', pass)
      resolve(signal === null ? code : 1)
    })
  })
}

/** A suite that could not be loaded has no tests to count: it is one failure. */
function countsOf(report) {
  const broken = report.testResults.filter(
    (suite) => suite.status === 'failed' && suite.assertionResults.length === 0,
  ).length
  return {
    passed: report.numPassedTests,
    failed: report.numFailedTests + broken,
    skipped: report.numPendingTests + report.numTodoTests,
  }
}

function skippedOf(report) {
  return report.testResults.flatMap((suite) =>
    suite.assertionResults
      .filter(({ status }) => status === 'pending' || status === 'todo')
      .map(({ fullName }) => `${path.relative(root, suite.name)}: ${fullName}`),
  )
}

function close({ passed, failed, skipped }) {
  const line = `${passed} passed, ${failed} failed, ${skipped} skipped`
  if (process.env.MANIFOLD_TEST_REPORT) fs.writeFileSync(process.env.MANIFOLD_TEST_REPORT, `${line}\n`)
  console.log(line)
}

/**
 * One Kafka node for all suites that ask for none of their own: a start of each costs eight seconds of processor time.
 * Resolves to what stops it.
 */
async function shareKafka() {
  if (process.env.MANIFOLD_TEST_KAFKA !== undefined || kafka.available().length === 0) return () => undefined
  const server = await kafka.startKafka()
  process.env.MANIFOLD_TEST_KAFKA = server.bootstrap
  return () => server.stop()
}

ready(__filename, async () => {
  const wholeSuite = args.length === 0
  if (wholeSuite && (await run(path.join(root, 'scripts', 'services.js'), ['install'])) !== 0 && demanded) {
    console.log('a service that the tests need cannot be had, and MANIFOLD_REQUIRE_SERVICES=1 demands all')
    close({ passed: 0, failed: 1, skipped: 0 })
    process.exitCode = 1
    return
  }
  const stop = wholeSuite ? await shareKafka() : () => undefined
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'manifold-test-report-'))
  try {
    const file = path.join(folder, 'report.json')
    const code = await run(path.join(root, 'node_modules', 'jest', 'bin', 'jest.js'), [
      '--json',
      `--outputFile=${file}`,
      ...args,
    ])
    if (!fs.existsSync(file)) {
      close({ passed: 0, failed: 1, skipped: 0 })
      process.exitCode = code === 0 ? 1 : code
      return
    }
    const report = JSON.parse(fs.readFileSync(file, 'utf8'))
    const counts = countsOf(report)
    const skipped = skippedOf(report)
    if (wholeSuite && skipped.length > 0)
      console.log(['', 'skipped:', ...skipped.map((name) => `  ${name}`)].join('\n'))
    close(counts)
    process.exitCode = code === 0 && counts.failed > 0 ? 1 : code
  } finally {
    fs.rmSync(folder, { recursive: true })
    await stop()
  }
})
